"""The words of the prompts, in English and Chinese, and the shape every prompt has.

The system message depends on the task alone, so that a replica computes it once (prefix caching); every token of a
user turn is paid once per text. Text comes first in the user turn and what is asked about it last: the prompts of the
types of one text then share everything up to the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ner_batch.data import Message
from ner_batch.task import Language, Task

HEAD: Mapping[Language, str] = {"en": "Find the named entities in the text.", "zh": "找出文本中的命名实体。"}
TYPES: Mapping[Language, str] = {"en": "Types:", "zh": "类型："}
TEXT: Mapping[Language, str] = {"en": "Text:", "zh": "文本："}
NONE: Mapping[Language, str] = {"en": "none", "zh": "无"}


def system(task: Task, labels: Sequence[str], rule: str, head: Mapping[Language, str] = HEAD) -> str:
    """The system message: what to do, the labels (with definitions of their own), the guidelines, the answer's rule."""
    lines = [head[task.language]]
    if labels:
        lines.append(TYPES[task.language])
    lines += [f"{label}: {task.definition(label)}" if task.labels[label].definition else label for label in labels]
    if task.guidelines:
        lines.append(task.guidelines.strip())
    return "\n".join([*lines, rule])


def turn(text: str, task: Task, *lines: str) -> str:
    """A user turn: the text in its frame, then what is asked about it."""
    return "\n".join([TEXT[task.language], text, *lines])


def about(label: str, task: Task, plain: Mapping[Language, str], defined: Mapping[Language, str], *words: str) -> str:
    """A sentence about ``words`` and a label, with the label's definition where it has one of its own."""
    if definition := task.labels[label].definition:
        return defined[task.language].format(*words, label, definition)
    return plain[task.language].format(*words, label)


def conversation(system_message: str, demonstrations: Iterable[tuple[str, str]], last_user_turn: str) -> list[Message]:
    """The chat: system message, (user turn, answer) of every demonstration in the order given, the last user turn."""
    messages: list[Message] = [{"role": "system", "content": system_message}]
    for user_turn, answer in demonstrations:
        messages.append({"role": "user", "content": user_turn})
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": last_user_turn})
    return messages


# A template may end with the mark that opens it, as those of DeepSeek-R1 and Qwen3-Thinking do.
_THOUGHT = re.compile(r"\s*(?:<think>)?.*?</think>\s*", re.DOTALL)
_FENCE = re.compile(r"\s*`{3,}[a-z]*\s*")


def thought_length(answer: str, text: str) -> int:
    """Characters of the thought that stands before an answer; none where the text itself has such marks."""
    thought = _THOUGHT.match(answer) if "think>" not in text else None
    return thought.end() if thought else 0


def is_fence(line: str, text: str) -> bool:
    """Whether a line is Markdown's mark around what is to be taken as it stands, and nothing of the text."""
    return "```" not in text and bool(_FENCE.fullmatch(line))


def is_none(answer: str, none: str) -> bool:
    """Whether an answer is the word for none, whatever its case, white space and final stop."""
    return answer.strip().rstrip(".。").casefold() == none.casefold()
