"""How long alignment takes: 100 mentions in 10,000 characters, best of 20. Run by hand; the goal is 5 ms each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from ner_batch.text import boundaries
from ner_batch.text.align import ground
from ner_batch.text.folding import fold

LENGTH = 10_000
LATIN = ("Alice Cooper", "General Motors", "Columbus", "New York", "O'Neil", "Ohio State", "Düsseldorf")
HAN = ("北京大学", "李克强", "玛丽·博拉", "中国石油天然气股份有限公司", "Columbus")
INDIC = ("नरेन्द्र मोदी", "दिल्ली", "Columbus")
TEXTS = {
    "English": (LATIN[:-1], "On Monday {} of the old company flew from there to {}; Dr. {} stayed behind.\n"),
    "quoted": (LATIN, "On Monday “{}” of the old company flew from ‘there’ to {} — Dr. {} stayed behind …\n"),
    "German": (LATIN, "Größere Straßen bei {} führen über die ﬂache Ebene … zum „Schloß“ von {} und {}. "),
    "Chinese": (HAN, "２０１９年3月，国务院总理{}在这里会见了{}公司董事长{}一行。"),
    "spaced zh": (HAN, "２ ０ １ ９ 年 3 月 ， 国 务 院 总 理 {} 在 这 里 会 见 了 {} 公 司 董 事 长 {} 一 行 。 "),
    "Hindi": (INDIC, "भारत के प्रधानमंत्री {} ने नई दिल्ली में {} के मंत्री {} से मुलाकात की। "),
    "Thai": (HAN, "นายกรัฐมนตรี {} เดินทางจากกรุงเทพมหานครไปยัง{}เมื่อวันจันทร์กับ {} "),
}


def filled(names: Sequence[str], sentence: str) -> tuple[str, list[str]]:
    """LENGTH characters of the sentence with numbered names in its gaps, and 100 of the names in reading order."""
    text, mentions = "", []
    for number in count():
        three = [f"{names[(number * 3 + i) % len(names)]} {number // 4}{'abc'[i]}" for i in range(3)]
        if len(text) + len(extended := sentence.format(*three)) > LENGTH:
            break
        text += extended
        mentions += three
    return text, [mentions[i * len(mentions) // 100] for i in range(100)]


def best(run: Callable[[], object]) -> float:
    """CPU milliseconds of the fastest of 20 runs (other work on the machine does not count), the memory of boundaries emptied before each."""
    times = []
    for _ in range(20):
        boundaries.cuts.cache_clear()
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    """Print one line per text: boundaries alone, the normalised view alone; exact, normalised and absent mentions."""
    print(f"{'':10}{'cuts':>8}{'fold':>8}{'exact':>8}{'upper':>8}{'absent':>8}   ms")
    for language, (basenames, sentence) in TEXTS.items():
        text, names = filled(basenames, sentence)
        row = [best(partial(boundaries.cuts, text)), best(partial(fold, text))]
        for pattern in ("{}", "{}\u200b", "{}?!"):
            mentions = [(pattern.format(name if pattern == "{}" else name.upper()), "X") for name in names]
            row.append(best(partial(ground, mentions, text)))
        print(f"{language:10}" + "".join(f"{value:8.2f}" for value in row))
    for name, text, mentions in hard_cases():
        print(f"{name:42}{best(partial(ground, mentions, text)):8.2f}")


def hard_cases() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Texts that repeat one character, where a careless search goes over the whole text for every occurrence."""
    return [
        ("a…a, 100 times 'a'", "a" * LENGTH, [("a", "X")] * 100),
        ("a…a, 'A' to 'A…A' (100)", "a" * LENGTH, [("A" * n, "X") for n in range(1, 101)]),
        ("a a…a, 100 times 'a'", "a " * (LENGTH // 2), [("a", "X")] * 100),
        ("哈…哈, 100 times '哈'", "哈" * LENGTH, [("哈", "X")] * 100),
        ("哈…哈, '哈' to '哈…哈' (100)", "哈" * LENGTH, [("哈" * n, "X") for n in range(1, 101)]),
        ("ß…ß, 100 times 'ẞ'", "ß " * (LENGTH // 2), [("ẞ", "X")] * 100),
        ("e + 9,999 accents, 100 times 'e'", "e" + "\u0301" * (LENGTH - 1), [("e", "X")] * 100),
    ]


if __name__ == "__main__":
    main()
