"""What the synthetic names are made of. Every list is the project's own; every full name is put together by chance.

The pools of the held-out side (``held=True`` in :func:`surface`) share a part of the building blocks with the training
side, as real names do, and have blocks of their own: see :func:`blocks`.
"""

# ruff: noqa: E501, SIM905  (word lists: a Chinese character counts double, and split() keeps a list readable)

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

TYPES = ("PERSON", "ORG", "PLACE", "DATE", "PRODUCT", "TITLE")

_GIVEN = (
    "Alba Arlo Bela Boris Cora Dario Edda Elio Fenna Gita Hugo Ilse Ivor Jonas Kaia Lena Leif Mara Milo Nadia Niko Odin Orla Paolo "
    "Petra Quinn Rafa Rhea Rosa Sven Tamar Tilda Ugo Vera Viktor Wanda Xenia Yara Yusuf Zeno Zora Anton Britta Carla Dmitri Esme"
).split()
_SURNAME_HEAD = (
    "Ald Bar Berg Bram Cald Cor Dahl Del Dor Eld Fair Fal Gar Gold Gren Hal Har Hol Jar Kel Kor Lang Lind Mar Mel Mor Nor Ost "
    "Pal Pem Quar Ram Rav Ros San Sel Stan Tar Thor Tol Vand Var Wal Wes Win Yor Zan Zim"
).split()
_SURNAME_TAIL = "son sen man ner ini ova ski ez aro ell wick ley ers ado ano etti ovic ska dottir strom".split()
_PLACE_HEAD = (
    "Ash Beck Black Brook Cedar Clear Dun East Elm Fern Fox Glen Gray Green Hart Hazel High Iron King Lake Long Maple Mill North "
    "Oak Old Pine Raven Red Rock Salt Silver South Spring Stone Sun Swan Thorn Wolf West White Wind Wood Brim Kest Tarn Marl"
).split()
_PLACE_TAIL = "ville ton burg haven ford mouth stead bury dale port field wick minster bridge holm ness".split()
_ORG_HEAD = (
    "Acu Ampli Astra Axio Brio Calyx Cinder Cobal Delphi Dyna Ecto Equi Ferro Flexi Gala Helio Hydra Inno Juno Kino Lumen "
    "Macro Meri Nexa Nova Omni Opti Orbi Para Penta Poly Prima Quanti Sola Stella Syno Tecto Terra Trio Ultra Vecto Verti Xylo Zephy"
).split()
_ORG_TAIL = "tec net cor lex via gen dyne sys mark plan lux nor dex ron".split()
_ORG_KIND = (
    "Systems|Labs|Bank|Institute|Group|Foods|Airlines|Motors|Partners|Press|University|Hospital|Museum|Foundation|Energy|Insurance|"
    "Theatre|Society|Records|Holdings|Railways|Shipping|Pharma|Academy"
).split("|")
_FIELD = (
    "Agriculture|Health|Transport|Fisheries|Marine Research|Applied Physics|Public Works|Music|Ancient History|Mining|Labour|"
    "Education|Forestry|Statistics|Digital Arts|Water Affairs"
).split("|")
_MONTH = "January February March April May June July August September October November December".split()
_DAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_SEASON = "spring summer autumn winter".split()
_PRODUCT_HEAD = (
    "Zentra Veloro Pixon Aerix Brava Cirrus Dexon Fluxa Glint Halo Ignis Jetta Krios Lyra Mistral Nimbo Onyx Pulsar Quill Rapido "
    "Strato Tempo Umbra Vortex Wisp Xeno Yonder Zippa Argo Boltic Cosmo Drifta"
).split()
_PRODUCT_TAIL = "Pro|Max|Mini|Air|Plus|Lite|Ultra|Go|Neo|Edge".split("|")
_TITLE_RANK = "chief|deputy|senior|assistant|acting|principal|vice|former|regional|junior|lead|associate".split("|")
_TITLE_NOUN = (
    "engineer|editor|director|president|surgeon|curator|manager|accountant|architect|secretary|professor|conductor|inspector|"
    "designer|analyst|librarian|geologist|pilot|chemist|auditor|minister|producer|translator|treasurer|trainer|researcher"
).split("|")
_TITLE_FIELD = "marketing|finance|research|security|sales|design|logistics|planning|training|operations".split("|")

_ZH_SURNAME = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
_ZH_GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华建国志红梅兰玉珍琴云飞鹏宇轩浩然子涵欣怡思远嘉俊晨曦雪婷慧颖佳琪瑞泽博文雅诗晓东海波峰岩松柏青竹月琳瑶锦程凯旋振兴德生福祥永昌立新庆春"
_ZH_FOREIGN = "马可费里尼安德烈娜塔莎罗伯特汉斯克劳斯伊万诺夫艾琳丹尼尔索菲亚路易莎米勒科尔托马斯瓦格纳莱昂比安卡奥古雷纳朱利维森卡洛萨尔曼"
_ZH_PLACE = (
    "临清远安平阳泰和宁德川永兴海丰石南东西北汉江沙河山林龙凤金银玉溪浦淮泉嘉云岭松柳桐梅青白沧荆湖港洛岳霞潭雁鹤岚"
)
_ZH_PLACE_TAIL = "市|县|镇|省|区|州|村|岛|山|湖|乡|新区|古镇|半岛".split("|")
_ZH_ORG = (
    "华信恒盛通达瑞丰鼎诚博远天宇宏图中科嘉业联创启明星辰同济正大万象金石蓝海东方卓越新锐汇智安泰利民百川长青国泰民生"
)
_ZH_ORG_KIND = (
    "科技有限公司|大学|银行|医院|研究院|集团|出版社|航空公司|保险公司|博物馆|基金会|证券公司|电视台|中学|歌舞团|汽车厂|药业股份有限公司|"
    "建筑设计院|交响乐团|日报社|物流公司|商会|法院|农业局|教育局|图书馆"
).split("|")
_ZH_PRODUCT = "星澜云帆青鹭飞燕极光雷霆晨露清风赤兔银河墨竹流萤惊鸿踏雪长虹紫电追月逐日听涛凌波朝霞寒梅"
_ZH_PRODUCT_TAIL = "手机|相机|平板|耳机|音箱|汽车|手表|无人机|机器人|净水器|打印机|洗衣液".split("|")
_ZH_RANK = "|副|总|首席|高级|助理|代理|前|名誉|常务副|执行".split("|")
_ZH_NOUN = (
    "董事长|校长|工程师|编辑|经理|院长|主任|教授|设计师|会计师|秘书长|局长|研究员|导演|指挥|记者|审计师|馆长|裁判|顾问|总监|主席|"
    "书记|检察官|翻译|店长"
).split("|")
_ZH_NUMBER = "一二三四五六七八九"


def blocks(pool: Sequence[str], held: bool) -> Sequence[str]:
    """The part of a pool one side may use: the first 80 % trains, the last 60 % is held out (40 % are common to both)."""
    return pool[len(pool) * 2 // 5 :] if held else pool[: len(pool) * 4 // 5]


def _join_zh(rng: random.Random, pool: str, count: int, held: bool) -> str:
    return "".join(rng.choices(blocks(pool, held), k=count))


def _word_zh(rng: random.Random, pool: str, held: bool) -> str:
    pairs = [pool[i : i + 2] for i in range(0, len(pool) - 1, 2)]
    return rng.choice(blocks(pairs, held))


def _person_en(rng: random.Random, held: bool) -> str:
    given = rng.choice(blocks(_GIVEN, held))
    family = rng.choice(blocks(_SURNAME_HEAD, held)) + rng.choice(_SURNAME_TAIL)
    middle = rng.choice("ABCDEFGHJKLMNPRSTW") + ". " if rng.random() < 0.12 else ""
    return rng.choice((f"{given} {middle}{family}", f"{given} {middle}{family}", f"{given} {family}", family, given))


def _person_zh(rng: random.Random, held: bool) -> str:
    if rng.random() < 0.12:
        return "·".join(_join_zh(rng, _ZH_FOREIGN, rng.choice((2, 3)), held) for _ in range(rng.choice((1, 2, 2))))
    return rng.choice(_ZH_SURNAME) + _join_zh(rng, _ZH_GIVEN, rng.choice((1, 2, 2)), held)


def _place_en(rng: random.Random, held: bool) -> str:
    name = rng.choice(blocks(_PLACE_HEAD, held)) + rng.choice(_PLACE_TAIL)
    return rng.choice(
        (name, name, name, f"Port {name}", f"Lake {name}", f"{name} Island", f"{name} Bay", f"Mount {name}")
    )


def _place_zh(rng: random.Random, held: bool) -> str:
    return _join_zh(rng, _ZH_PLACE, rng.choice((1, 2, 2, 2)), held) + rng.choice(_ZH_PLACE_TAIL)


def _org_en(rng: random.Random, held: bool) -> str:
    name, kind = rng.choice(blocks(_ORG_HEAD, held)) + rng.choice(_ORG_TAIL), rng.choice(_ORG_KIND)
    town = rng.choice(blocks(_PLACE_HEAD, held)) + rng.choice(_PLACE_TAIL)
    field = rng.choice(_FIELD)
    forms = (
        f"{name} {kind}",
        f"{name} {kind}",
        name,
        f"University of {town}",
        f"{town} {kind}",
        f"{town} Institute of {field}",
    )
    return rng.choice((*forms, f"{town} Ministry of {field}"))


def _org_zh(rng: random.Random, held: bool) -> str:
    name, kind = _word_zh(rng, _ZH_ORG, held), rng.choice(_ZH_ORG_KIND)
    if rng.random() < 0.3:
        name = (
            rng.choice((_join_zh(rng, _ZH_PLACE, 2, held) + rng.choice("市省县"), _join_zh(rng, _ZH_PLACE, 2, held)))
            + name
        )
    return name + kind


def _date_en(rng: random.Random, held: bool) -> str:
    year = rng.randrange(1990, 2030) if held else rng.randrange(1900, 2010)
    day, month, weekday = rng.randrange(1, 29), rng.choice(_MONTH), rng.choice(_DAY)
    forms = (
        f"{day} {month} {year}",
        f"{month} {day}, {year}",
        f"{month} {year}",
        f"the {rng.choice(_SEASON)} of {year}",
    )
    return rng.choice((*forms, f"{year}-{rng.randrange(1, 13):02d}-{day:02d}", f"{weekday}, {day} {month}"))


def _date_zh(rng: random.Random, held: bool) -> str:
    year = rng.randrange(1990, 2030) if held else rng.randrange(1900, 2010)
    month, day = rng.randrange(1, 13), rng.randrange(1, 29)
    season = rng.choice("春夏秋冬")
    forms = (
        f"{year}年{month}月{day}日",
        f"{year}年{month}月",
        f"{year}年{season}天",
        f"{year}年底",
        f"{month}月{day}日上午",
    )
    return rng.choice((*forms, f"{year}年{rng.choice(_ZH_NUMBER)}月"))


def _product_en(rng: random.Random, held: bool) -> str:
    name, number = rng.choice(blocks(_PRODUCT_HEAD, held)), rng.randrange(2, 990)
    letter, tail = rng.choice("ABCDEGKMPRSTXZ"), rng.choice(_PRODUCT_TAIL)
    return rng.choice(
        (
            f"{name} {letter}{number}",
            f"{name} {number}",
            f"{name} {tail}",
            f"{name} {number} {tail}",
            f"{name}-{number}",
        )
    )


def _product_zh(rng: random.Random, held: bool) -> str:
    name, number, letter = _word_zh(rng, _ZH_PRODUCT, held), rng.randrange(2, 990), rng.choice("ABCDEGKMPRSTXZ")
    tail = rng.choice(_ZH_PRODUCT_TAIL)
    return rng.choice(
        (f"{name}{letter}{number}", f"{name}{letter}{number}{tail}", f"{name}{number}号", f"{name}牌{tail}")
    )


def _combine(rng: random.Random, heads: Sequence[str], nouns: Sequence[str], held: bool) -> tuple[str, str]:
    """A pair of a head and a noun; every fourth pair belongs to the held-out side."""
    while True:
        head, noun = rng.randrange(len(heads)), rng.randrange(len(nouns))
        if ((head + noun) % 4 == 0) == held:
            return heads[head], nouns[noun]


def _title_en(rng: random.Random, held: bool) -> str:
    if rng.random() < 0.6:
        return " ".join(_combine(rng, _TITLE_RANK, _TITLE_NOUN, held))
    field, noun = _combine(rng, _TITLE_FIELD, _TITLE_NOUN, held)
    return rng.choice((f"head of {field} {noun}s", f"{field} {noun}"))


def _title_zh(rng: random.Random, held: bool) -> str:
    return "".join(_combine(rng, _ZH_RANK, _ZH_NOUN, held))


_MAKERS: dict[str, dict[str, Callable[[random.Random, bool], str]]] = {
    "en": dict(zip(TYPES, (_person_en, _org_en, _place_en, _date_en, _product_en, _title_en), strict=True)),
    "zh": dict(zip(TYPES, (_person_zh, _org_zh, _place_zh, _date_zh, _product_zh, _title_zh), strict=True)),
}


def surface(rng: random.Random, language: str, kind: str, held: bool) -> str:
    """A made-up name of one type. ``language`` is en or zh; ``held`` draws from the blocks of the held-out side."""
    return _MAKERS[language][kind](rng, held)
