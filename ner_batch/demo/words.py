"""Common words, label names and named things of the curriculum: what the tokeniser merges and the base model meets."""

# ruff: noqa: E501, SIM905  (word lists: a Chinese character counts double, and split() keeps a list readable)

from __future__ import annotations

COMMON = """
a about above accept accord according account across act action active actual add address after again against age agency agent ago agree
agreement air all allow almost alone along already also although always am among amount an and animal another answer any anyone
anything appear application apply area argue arm army around arrive art article as ask at attack attempt author authority available
away back bad bank base be bear beat beautiful because become bed been before began begin behind being believe below benefit best better
between beyond big bill black blood blue board boat body book both box boy break bring brother brought build building business but buy by
call called came can capital car card care carry case cause cell center centre central century certain chair chance change character
charge chief child children choice church city claim class clear close club cold college come committee common community company
computer condition conference contain continue control cost could council country county course court cover create cup current cut dark
data daughter day days dead deal death decide decision deep defense degree department describe design development did die difference different
director do doctor does dog done door down draw dream drive drug during each early earth east easy eat economic edge education effect
effort eight either election else end energy engine enough enter entire environment especially establish even evening event ever
every everyone everything evidence example executive expect experience explain eye face fact factor fail fall family famous far farm
father fear federal feel feet few field fight figure fill film final finally financial find fine finish fire firm first fish five floor fly
follow following food foot for force foreign forest form former forward found four free friend from front full fund future game garden gas
general get girl give given glass go goal god gold gone good got government great green ground group grow growth guess gun had hair half
hall hand hang happen happy hard has hat have he head health hear heard heart heat heavy held help her here herself high him himself his
history hit hold home hope horse hospital hot hotel hour hours house how however human hundred husband idea identify if image important in
include including increase indeed industry information inside instead institute interest international interview into investment is island
issue it item its itself job join just keep kept key kill kind king kitchen knew know known labour lake land language large last
late later laugh law lay lead leader learn least leave led left legal less let letter level library lie life light like likely line list
listen little live local long look lord lose loss lost lot love low machine made main major make man manage management manager many map
march mark market marriage material matter may maybe me mean measure media medical meet meeting member men mention message method
middle might mile miles military million mind minister minute miss modern moment money month months more morning most mother mountain mouth
move movement much music must my name named nation national nature near nearly necessary need network never new news newspaper next
night nine no none nor north not note nothing notice now number occur of off offer office officer official often oh oil old on once one
only onto open operation opportunity or order organization other others our out outside over own owner page paint paper parent park part
party pass past patient pay peace people per perhaps period person phone picture piece place plan plant play player point police policy
political poor popular population position possible power practice prepare present president press pretty price prince private
probably problem process produce product production professional professor program project property protect prove provide public pull
purpose push put quality question quickly quite race radio raise range rate rather reach read ready real reality realize really
reason receive recent recently record red reduce region relate release remain remember remove report represent require research
resource respond rest result return rich right rise river road rock role room rule run sad safe said sale same saw say says school
science scientist sea season seat second secret section security see seek seem seen sell send senior sense sent series serious
serve service set seven several shake shall share she ship shoot shop short should shoulder show side sign simple since sing single
sir sister sit situation six size skill skin small smile so social society soldier some someone something son song soon sort sound
source south space speak special spend sport spring staff stage stand standard star start state station stay step still stock stone
stop store story street strong student study stuff style subject success such suddenly suggest summer sun support sure surface system table
take talk task tax teach teacher team technology tell ten term test text than thank that the their them themselves then theory there these
they thing things think third this those though thought thousand three through throughout throw thus time title to today together told
tonight too took tool top total touch toward town trade traditional train training travel treat tree trial trip trouble true truth try turn
two type under understand union unit university until up upon us use used user usually value various very victim view village visit voice
vote wait walk wall want war was watch water way we weapon wear week weeks weight well went were west what whatever when where
whether which while white who whole whom whose why wide wife will win wind window winter wish with within without woman women word words
work worker world would write writer writing written wrong yard year years yes yet you young your yourself
system user assistant entity entities extract named following JSON list types answer mention mentions span definition exactly empty
""".split()

LABELS = """
PERSON ORG PLACE DATE PRODUCT TITLE NAME LOC GPE MISC EVENT TIME MONEY PERCENT QUANTITY NUMBER CODE EMAIL ANIMAL FOOD COLOUR TOOL METAL
LANGUAGE DISEASE GENE PROTEIN DRUG SONG GAME SHIP BOOK FILM TEAM SPORT WEAPON VEHICLE CITY COUNTRY RIVER STREET COMPANY SCHOOL AWARD LAW
PLANT FRUIT STAR PET FACILITY WHO HUMAN FIRM BODY SPOT SITE WHEN DAY GOODS MODEL POST JOB MARK KEY ITEM TAG CONT EDU PRO RACE NAM NOM PER CELL TYPE GROUP
""".split()

SYLLABLES = (
    "ba be bi bo bra ca co cu da de di dor el en fa fi ga go gra ha he il in jo ka ke ki la le li lo ma me mi mo na ne ni no or pa pe ra re ri ro sa se si so ta te ti to tra un va ve vi wa we xi ya yo za ze zo"
).split()

THINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "ANIMAL": tuple("cat dog horse fox hare owl trout goat sheep heron wolf bear crow mule otter pig".split()),
        "FOOD": tuple("bread rice soup cheese honey plum apple stew butter porridge noodles salad cake pie".split()),
        "COLOUR": tuple("red blue green yellow purple orange pink brown grey silver white black".split()),
        "TOOL": tuple("hammer saw drill ladder rope knife needle shovel axe chisel wrench pump".split()),
        "METAL": tuple("iron copper tin lead zinc nickel gold brass steel bronze".split()),
    },
    "zh": {
        "ANIMAL": tuple("猫 狗 马 狐狸 野兔 猫头鹰 山羊 绵羊 苍鹭 狼 熊 乌鸦 骡子 水獭 猪 老虎".split()),
        "FOOD": tuple("面包 米饭 汤 奶酪 蜂蜜 李子 苹果 炖菜 黄油 粥 面条 沙拉 蛋糕 馅饼 豆腐".split()),
        "COLOUR": tuple("红色 蓝色 绿色 黄色 紫色 橙色 粉色 棕色 灰色 银色 白色 黑色".split()),
        "TOOL": tuple("锤子 锯子 电钻 梯子 绳子 小刀 针 铲子 斧头 凿子 扳手 水泵".split()),
        "METAL": tuple("铁 铜 锡 铅 锌 镍 金子 黄铜 钢 青铜".split()),
    },
}

# Cues name what follows them, whatever it is: they teach the model to copy an unseen span because of its neighbours.
CUES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "PET": ("a pet named {X} slept", "they fed their pet {X} at noon", "the pet {X} ran away"),
        "SHIP": ("the ship {X} sank", "aboard the ship {X} they sang", "a ship called {X} left the harbour"),
        "DISEASE": ("he suffered from {X} for years", "the doctors cured {X}", "a case of {X} was found"),
        "LANGUAGE": ("she speaks {X} well", "the letter is written in {X} and torn", "he learnt {X} as a child"),
        "GAME": ("children play {X} here", "the rules of {X} are hard", "a round of {X} takes an hour"),
        "SONG": ("the choir sang {X} twice", "the song {X} is old", "he wrote the melody of {X} at sea"),
        "PLANT": ("the flower {X} grows slowly", "leaves of {X} are bitter", "a field of {X} burned"),
        "STAR": ("the star {X} is bright", "light from {X} reaches us", "they observed {X} through a lens"),
    },
    "zh": {
        "PET": ("名叫{X}的宠物睡着了", "他们中午喂了宠物{X}", "宠物{X}跑掉了"),
        "SHIP": ("轮船{X}沉没了", "在{X}轮上他们唱歌", "一艘名为{X}的船离开港口"),
        "DISEASE": ("他患有{X}多年", "医生治好了{X}", "发现一例{X}"),
        "LANGUAGE": ("她会说{X}语", "这封信用{X}写成", "他从小学习{X}"),
        "GAME": ("孩子们在玩{X}", "{X}的规则很难", "一局{X}需要一小时"),
        "SONG": ("合唱团唱了两遍{X}", "歌曲{X}很老", "他在海上写下{X}的旋律"),
        "PLANT": ("花卉{X}长得慢", "{X}的叶子是苦的", "一片{X}地烧毁了"),
        "STAR": ("恒星{X}很亮", "来自{X}的光", "他们用望远镜观测{X}"),
    },
}

# Labels over the demo's own types, by other names: (types, English definition, Chinese definition).
NAMED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "WHO": (("PERSON",), "who is meant", "何人"),
    "HUMAN": (("PERSON",), "men and women", "男女"),
    "FIRM": (("ORG",), "firms and offices", "单位"),
    "BODY": (("ORG",), "bodies that act", "团体"),
    "SPOT": (("PLACE",), "where it is", "何处"),
    "SITE": (("PLACE",), "parts of the map", "地图上的名字"),
    "WHEN": (("DATE",), "when it was", "何时"),
    "DAY": (("DATE",), "days, months, years", "年月日"),
    "GOODS": (("PRODUCT",), "what is sold", "货物"),
    "MODEL": (("PRODUCT",), "makes and models", "型号"),
    "POST": (("TITLE",), "posts held", "职位"),
    "JOB": (("TITLE",), "what one works as", "工作"),
    "ITEM": (("PERSON", "ORG", "PLACE", "DATE", "PRODUCT", "TITLE"), "names, times and ranks of all sorts", "各种名称、时间和职衔"),
    "NAME": (("PERSON", "ORG", "PLACE", "PRODUCT"), "all proper names", "所有专名"),
    "NAM": (("PERSON", "ORG"), "who acts", "行动者"),
    "KEY": (("PLACE", "PRODUCT"), "where and what", "何处何物"),
    "TAG": (("DATE", "TITLE"), "when and as what", "何时何职"),
}  # fmt: skip

MEANINGS: dict[str, dict[str, str]] = {
    "en": {
        "ANIMAL": "animals", "FOOD": "things to eat", "COLOUR": "colours", "TOOL": "tools", "METAL": "metals", "PET": "names of pets",
        "SHIP": "names of ships", "DISEASE": "diseases", "LANGUAGE": "languages", "GAME": "games", "SONG": "songs", "PLANT": "plants",
        "STAR": "stars", "CODE": "codes", "EMAIL": "mail addresses", "TIME": "times of day", "MONEY": "sums of money",
        "MARK": "what stands between {} and {}",
    },
    "zh": {
        "ANIMAL": "动物", "FOOD": "食物", "COLOUR": "颜色", "TOOL": "工具", "METAL": "金属", "PET": "宠物名", "SHIP": "船名", "DISEASE": "疾病",
        "LANGUAGE": "语言", "GAME": "游戏", "SONG": "歌曲", "PLANT": "植物", "STAR": "星名", "CODE": "编号", "EMAIL": "邮箱", "TIME": "时刻",
        "MONEY": "金额", "MARK": "{}和{}之间的文字",
    },
}  # fmt: skip
