"""The tiny model's tokeniser: byte-level BPE that cuts text so that a word's tokens do not depend on its neighbours.

The model finds an entity by copying it, token by token. A copy stands between quotes where the original stood
between spaces, so white space, punctuation marks and Chinese characters are tokens of their own (most tokenisers
glue a space to the next word, which makes the copy begin with another token). Digits go in pairs. The joints of a
JSON answer are single tokens, which saves decoding steps.

Chinese: the 3,755 characters of GB 2312 level 1, ordered there by use and pronunciation and covering some 99.7 %
of running text; all other characters are their bytes, two tokens for other Chinese ones. Every text decodes to
itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ner_batch.demo import lexicon, patterns, words

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
JOINTS = ('{"', '":["', '","', '"],"', '"]}', "{}")
_PIECES = r'":\["|","|"\],"|"\]\}|\{"|\{\}|[A-Za-z]+|[0-9]{1,2}|(?m:.)'
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_MARKS = (
    "\u3000\u3001\u3002\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u2018\u2019\u201c\u201d\u2026\u2014\u2013"
    "\u00b7\uff0c\uff1b\uff1a\uff01\uff1f\uff08\uff09\uff05\uffe5\uff5e\u00ab\u00bb\u3007\u00e9\u00e8\u00fc\u00f6"
    "\u00e4\u00e7\u00f1\u2022\u00d7\u2103"
)


def common_characters() -> str:
    """The 3,755 most used Chinese characters: GB 2312 rows 16 to 55 (level 1)."""
    cells = (bytes([0xA0 + row, 0xA0 + cell]) for row in range(16, 56) for cell in range(1, 95))
    return "".join(cell.decode("gb2312", errors="ignore") for cell in cells)


def build(english_merges: int = 1500) -> PreTrainedTokenizerFast:
    """The tokeniser, built from the project's own word lists; the same on every machine."""
    pairs = [str(tens) + str(ones) for tens in range(10) for ones in range(10)]
    merges = _english_merges(english_merges) + list(_chains([*JOINTS, *pairs, *_MARKS, *common_characters()]))
    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _cut()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, START, END])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Write the tokeniser's files (tokenizer.json, tokenizer_config.json with the chat template inside)."""
    tokenizer.save_pretrained(str(folder))


def _cut() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _letters(text: str) -> str:
    """Text as the byte letters byte-level BPE works on."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in level.pre_tokenize_str(text))


def _english_merges(count: int) -> list[tuple[str, str]]:
    """``count`` merges learnt on the word lists: common words become whole tokens, names fall into a few pieces."""
    learner = Tokenizer(models.BPE())
    learner.train_from_iterator(
        _weighted_words(), trainers.BpeTrainer(vocab_size=52 + count, show_progress=False, max_token_length=12)
    )
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def _weighted_words() -> Iterator[str]:
    """Words, weighted by repetition: label names, common words, words of the patterns, made-up names."""
    rng = random.Random(0)
    shapes = [*patterns.TRAIN["en"], *patterns.EMPTY["en"], *chain(*patterns.FILLERS["en"].values())]
    shapes += [*chain(*words.CUES["en"].values()), *chain(*words.THINGS["en"].values())]
    names = (lexicon.surface(rng, "en", rng.choice(lexicon.TYPES), False) for _ in range(4000))
    yield from (word for label in words.LABELS for word in [label] * 60)
    yield from (word for common in words.COMMON for word in [common] * 20 + [common.capitalize()] * 3)
    yield from (word for shape in shapes for word in re.findall("[A-Za-z]+", re.sub(r"\{\w+\}", "", shape)) * 20)
    yield from (word for name in names for word in re.findall("[A-Za-z]+", name))


def _chains(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Merges that build each text from left to right, each merge once."""
    seen = set()
    for text in texts:
        letters = _letters(text)
        for end in range(1, len(letters)):
            pair = (letters[:end], letters[end])
            if pair not in seen:
                seen.add(pair)
                yield pair
