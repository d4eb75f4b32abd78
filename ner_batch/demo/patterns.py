"""Sentence patterns of the synthetic gold set.

A slot ``{P}`` is a new person, ``{O}`` an organisation, ``{L}`` a place, ``{D}`` a date, ``{R}`` a product, ``{T}`` a job title;
the same letter with the same digit (``{P1}`` ... ``{P1}``) is the same name again. ``{a}`` is an adjunct, ``{c}`` a common noun
and ``{n}`` a number: none of them is an entity. Patterns of ``HELD`` never occur in the training split.
"""

# ruff: noqa: E501  (word lists: a Chinese character counts double, and split() keeps a list readable)

from __future__ import annotations

SLOT_TYPES = {"P": "PERSON", "O": "ORG", "L": "PLACE", "D": "DATE", "R": "PRODUCT", "T": "TITLE"}

TRAIN: dict[str, tuple[str, ...]] = {
    "en": (
        "{P} joined {O} as {T}",
        "{P} was born in {L}",
        "{O} opened an office in {L} on {D}",
        "the {T} of {O}, {P}, resigned {a}",
        "{P} moved from {L} to {L}",
        "{O} released the {R} {a}",
        "{P}, {P} and {P} visited {L}",
        "on {D} {P} met {P} in {L}",
        "{O} hired {P} as its {T}",
        "the {c} in {L} was closed {a}",
        "{P1} sold the {c}, and {P1} left {L} {a}",
        "{O1} said that {O1} would sell the {R}",
        "the {R} costs {n} dollars in {L}",
        "{P} has used the {R} since {D}",
        "{L} and {L} are {n} miles apart",
        "{O} and {O} signed an agreement on {D}",
        "{P} works as {T} at {O}",
        "after the meeting, {P} praised the {R} and the {R}",
        "nobody at {O} expected the {c}",
        "the {c} began on {D} and ended on {D}",
        "{P} is the new {T}",
        "{T} {P} spoke about the {c} {a}",
        "{O} has {n} workers in {L}, {L} and {L}",
        "the {c} that {P} bought came from {O}",
        "{P} wrote to the {T} about the {c}",
        "a train from {L} arrived {a}",
        "in {D} the {c} was moved to {L}",
        "customers of {O} like the {R} more than the {R}",
        "{P1} was {T} until {D}, when {O} asked {P1} to stay",
        "the {R}, the {R} and the {R} were shown {a}",
        "{O}, {O} and {O} sent people to {L}",
        "between {D} and {D} {P} lived in {L}",
        "they took the {c} to {L} {a}",
        "{P} ({T}, {O}) declined to comment",
    ),
    "zh": (
        "{P}加入{O}担任{T}",
        "{P}出生于{L}",
        "{O}于{D}在{L}开设了办事处",
        "{O}{T}{P}{a}辞职",
        "{P}从{L}搬到了{L}",
        "{O}{a}发布了{R}",
        "{P}、{P}和{P}访问了{L}",
        "{D},{P}在{L}会见了{P}",
        "{O}聘请{P}为{T}",
        "{L}的{c}{a}关闭了",
        "{P1}卖掉了{c},{P1}{a}离开了{L}",
        "{O1}表示,{O1}将出售{R}",
        "{R}在{L}的售价为{n}元",
        "{P}自{D}起使用{R}",
        "{L}距离{L}有{n}公里",
        "{O}与{O}在{D}签署了协议",
        "{P}现任{O}{T}",
        "会后{P}称赞了{R}和{R}",
        "{O}没有人想到{c}",
        "{c}从{D}开始,到{D}结束",
        "{P}是新任{T}",
        "{T}{P}{a}谈到了{c}",
        "{O}在{L}、{L}和{L}共有{n}名员工",
        "{P}买的{c}来自{O}",
        "{P}给{T}写信谈{c}",
        "从{L}开来的列车{a}到达",
        "{D}{c}被运到{L}",
        "{O}的客户更喜欢{R}而不是{R}",
        "{P1}担任{T}直到{D},后来{O}请{P1}留下",
        "{a}展出了{R}、{R}和{R}",
        "{O}、{O}和{O}派人前往{L}",
        "{D}至{D}{P}住在{L}",
        "他们{a}把{c}带到了{L}",
        "{P},{L}人,曾任{O}{T}",
    ),
}

HELD: dict[str, tuple[str, ...]] = {
    "en": (
        "{O} named {P} {T} on {D}",
        "{P} came back to {L} with the {R}",
        "the {c} of {O} in {L} belongs to {P}",
        "{P1} and {P} founded {O} before {P1} became {T}",
        "visitors to {L} can buy the {R} {a}",
        "since {D} the {T} of {O} has been {P}",
        "{L1} is small, but {L1} has a {c} built by {O}",
        "{P} lost the {c} between {L} and {L}",
        "the {R} was designed by {P} of {O}",
        "two people, {P} and {P}, were seen in {L} on {D}",
    ),
    "zh": (
        "{D}{O}任命{P}为{T}",
        "{P}带着{R}回到{L}",
        "{O}在{L}的{c}属于{P}",
        "{P1}与{P}创办了{O},之后{P1}成为{T}",
        "到{L}的游客可以{a}购买{R}",
        "自{D}以来{O}的{T}一直是{P}",
        "{L1}不大,但{L1}有{O}建造的{c}",
        "{P}在{L}和{L}之间丢失了{c}",
        "{R}由{O}的{P}设计",
        "{D}有人在{L}看到{P}和{P}",
    ),
}

EMPTY: dict[str, tuple[str, ...]] = {
    "en": (
        "the {c} was late {a}",
        "nobody knew where the {c} and the {c} were",
        "it rained for {n} hours, and the {c} stayed dry",
        "we need {n} more of them {a}",
        "a bank lent money for the {c}",
        "the company and the university are near the {c}",
        "she read about the {c} {a}",
        "there is no {c} without a {c}",
    ),
    "zh": (
        "{c}{a}迟到了",
        "没有人知道{c}和{c}在哪里",
        "雨下了{n}个小时,{c}还是干的",
        "我们{a}还需要{n}个",
        "银行为{c}提供了贷款",
        "公司和大学都在{c}附近",
        "她{a}读到了关于{c}的消息",
        "没有{c}就没有{c}",
    ),
}

FILLERS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "a": (
            "after a long delay", "without any notice", "last night", "in the end", "for the second time", "with great care",
            "as the papers reported", "at the request of the families", "in spite of the weather", "for less than expected",
        ),
        "c": (
            "bridge", "old house", "contract", "letter", "market", "ship", "garden", "factory", "report", "painting", "school", "library",
            "harvest", "road", "concert", "machine", "festival", "machine room", "new law", "hotel", "river bank", "exhibition",
        ),
        "n": ("3", "12", "40", "75", "120", "300", "two", "seven", "1,500", "26", "ninety"),
    },
    "zh": {
        "a": ("在长时间拖延之后", "突然", "昨晚", "最终", "第二次", "小心地", "据报道", "应家属要求", "冒着大雨", "以较低的价格", "再次", "悄悄"),
        "c": (
            "大桥", "老房子", "合同", "信件", "市场", "轮船", "花园", "工厂", "报告", "油画", "学校", "图书", "粮食", "公路", "音乐会", "机器",
            "节日", "新规定", "酒店", "河岸", "展览", "比赛",
        ),
        "n": ("3", "12", "40", "75", "120", "300", "两", "七", "1500", "26", "九十"),
    },
}  # fmt: skip

JOINS: dict[str, tuple[str, ...]] = {"en": (", and ", "; ", ", while ", ", but "), "zh": (",", ";", ",而", ",但是")}
ENDS: dict[str, tuple[str, ...]] = {"en": (".", ".", ".", "!"), "zh": ("。", "。", "。", "!")}
