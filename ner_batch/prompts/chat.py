"""Chat messages to token ids, so that a document is data and never instructions.

The chat template is rendered with one placeholder per message, so its logic never sees (trims, splits, interprets) a
document. The rendering is tokenised with the placeholders as tokens of their own; only there are special tokens
special. Each message's content is tokenised by a copy of the tokenizer that knows no added token at all, and put in
its placeholder's place: a document that says ``<|im_end|>`` or ``<think>`` becomes the ordinary tokens of its letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import DecodeStream

from ner_batch.data import Message
from ner_batch.errors import UserError, first_line
from ner_batch.io import storage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Templates that print today's date would change the prompt at midnight, and with it the run's fingerprint.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
_MARK = re.compile("( ?)(\ue0b5([0-9]+)\ue0b6)")  # private use: in no template, and no content is searched for it
_CACHED_CONTENTS = 8192  # system messages and demonstrations come again and again; at some 100 ids each about 8 MB


class _Slot(NamedTuple):
    """A content's place in a rendered template: whose, and the space in front, which belongs to its first word."""

    message: int
    prefix: str


_Pieces = tuple[tuple[int, ...] | _Slot, ...]  # a rendered template: token ids, and between them the slots


class ChatTokenizer:
    """A model's chat template and tokenizer, as one function from messages to token ids.

    Thread-safe. ``template`` is the chat template's source; ``stop_token_ids`` end an answer: the template's end of
    turn, and the tokenizer's end of sequence.

    Raises:
        UserError: the tokenizer has no chat template, is not a fast one, or the template drops or repeats messages.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._name = str(tokenizer.name_or_path) or type(tokenizer).__name__
        if not tokenizer.chat_template:
            raise UserError(
                f"model {self._name!r} has no chat template: use an instruction-tuned model, or set chat_template"
            )
        backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(f"model {self._name!r} has no fast tokenizer: add its tokenizer.json")
        self.template: str = tokenizer.get_chat_template()
        self._backend = backend
        self._eos: int | None = None if tokenizer.eos_token is None else backend.token_to_id(str(tokenizer.eos_token))
        self._added = frozenset(
            i for i, token in backend.get_added_tokens_decoder().items() if not token.content.isspace()
        )
        self._plain = _without_added_tokens(backend, self._added)
        self._pieces = lru_cache(maxsize=256)(self._render_pieces)
        self._cached = lru_cache(maxsize=_CACHED_CONTENTS)(self._encode_plain)
        self._end = self._end_of_turn()
        self.stop_token_ids = tuple(dict.fromkeys(i for i in (self._end[-1], self._eos) if i is not None))

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ending in the header of the assistant's answer; thinking is off.

        A template that has no place for a system message gets it at the beginning of the first user turn.

        Raises:
            UserError: the template refuses this sequence of roles.
        """
        ids: list[int] = []
        for piece in self._pieces(tuple(m["role"] for m in messages)):
            if isinstance(piece, _Slot):
                text = piece.prefix + messages[piece.message]["content"]
                last = piece.message == len(messages) - 1  # the document: it comes but once
                ids.extend(self._encode_plain(text) if last else self._cached(text))
            else:
                ids.extend(piece)
        return ids

    def encode_answer(self, answer: str) -> list[int]:
        """Token ids of an assistant's answer and the end of its turn: what follows :meth:`encode` in training."""
        return [*self._encode_plain(answer), *self._end]

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has as plain text."""
        return [len(e) for e in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens shown."""
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def finished(self, text: str, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """The text of an answer that has ended, with the U+FFFD that vLLM leaves out at its end.

        ``text`` is vLLM's; ``prompt`` and ``answer`` are token ids. vLLM takes that character for half of another one,
        which it is where a model stops in the middle; but a prompt that has it shows that its document does.
        """
        whole = self._backend.decode([t for t in answer if t not in self.stop_token_ids], skip_special_tokens=True)
        is_withheld = whole.endswith("\ufffd") and whole != text and whole.startswith(text)
        return whole if is_withheld and "\ufffd" in self.decode(prompt) else text

    def pieces(self, prompt: Sequence[int], answer: Sequence[int]) -> list[str]:
        """What each token of an answer adds to its text, as vLLM puts it together: special tokens and ends nothing.

        Of tokens that share a character the last one adds it.
        """
        stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
        pieces = []
        for token in answer:
            try:
                piece = "" if token in self.stop_token_ids else stream.step(self._backend, token)
            except Exception:  # noqa: BLE001 - "invalid prefix" is a bare Exception; vLLM begins anew there as well
                stream = DecodeStream(skip_special_tokens=True)
                piece = stream.step(self._backend, token)
            pieces.append(piece or "")
        return pieces

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)

    def _render_pieces(self, roles: tuple[str, ...], generation_prompt: bool = True) -> _Pieces:
        """The template around messages of these roles, cut at their placeholders, which are tokens of their own.

        Falls back to a merged system message.
        """
        marks = [f"\ue0b5{i}\ue0b6" for i in range(len(roles))]
        turns = [Message(role=role, content=mark) for role, mark in zip(roles, marks, strict=True)]
        rendering = self._render(turns, generation_prompt)
        if rendering is None and len(turns) > 1 and roles[0] == "system":
            turns = [Message(role=roles[1], content=f"{marks[0]}\n\n{marks[1]}"), *turns[2:]]
            rendering = self._render(turns, generation_prompt)
        if rendering is None:
            raise UserError(
                f"the chat template for {self._name!r} does not render the turns {', '.join(roles)} once each and in "
                "order: use a model whose template takes user and assistant turns, or set chat_template"
            )
        if generation_prompt:
            rendering = self._up_to_the_answer(turns, rendering)
        backend = Tokenizer.from_str(self._backend.to_str())
        backend.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
        places = {backend.token_to_id(mark): i for i, mark in enumerate(marks)}
        prefix = {int(match[3]): match[1] for match in _MARK.finditer(rendering)}
        pieces: list[tuple[int, ...] | _Slot] = []
        run: list[int] = []
        for token in backend.encode(_MARK.sub(r"\2", rendering), add_special_tokens=False).ids:
            if token in places:
                pieces += [tuple(run), _Slot(places[token], prefix[places[token]])]
                run = []
            else:
                run.append(token)
        return (*pieces, tuple(run))

    def _up_to_the_answer(self, turns: list[Message], rendering: str) -> str:
        """The rendering, up to where the template has an answer begin, and outside of a thought.

        A template may write less as a generation prompt than it does before an answer that is there: nothing at all, a
        role without its channel (gpt-oss), a thought that is only opened (Qwen3-Thinking, which closes an empty one). A
        thought that stays open (DeepSeek-R1, QwQ) is closed as Qwen3 does where thinking is off.
        """
        answer = "\ue0b5answer\ue0b6"
        with_answer = self._apply([*turns, Message(role="assistant", content=answer)], generation_prompt=False) or ""
        before = with_answer.partition(answer)[0].rstrip(" ")  # a space belongs to the answer's first word
        if answer in with_answer and before.startswith(rendering):
            rendering = before
        header = rendering.rpartition("\ue0b6")[2]
        is_open = header.rfind("<think>") > header.rfind("</think>")
        return f"{rendering.rstrip()}\n\n</think>\n\n" if is_open else rendering

    def _render(self, turns: list[Message], generation_prompt: bool) -> str | None:
        """The rendering, or None where the template refuses the roles, or drops, repeats or moves a message."""
        text = self._apply(turns, generation_prompt)
        contents = "".join(turn["content"] for turn in turns)
        marks, expected = ([match[3] for match in _MARK.finditer(string)] for string in (text or "", contents))
        return text if marks == expected else None

    def _apply(self, turns: list[Message], generation_prompt: bool) -> str | None:
        """The template's text, or None where it refuses the roles."""
        from jinja2 import TemplateSyntaxError

        conversation: list[Any] = [*turns]
        try:
            text = self._tokenizer.apply_chat_template(
                conversation,
                chat_template=_FIXED_DATE + self.template,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                enable_thinking=False,
            )
        except TemplateSyntaxError as error:
            problem = f"line {error.lineno}: {error.message}"
            raise UserError(f"the chat template for {self._name!r} is no Jinja template: {problem}") from None
        except Exception:  # noqa: BLE001 - a template is a program: it raises what it likes
            return None
        assert isinstance(text, str)
        return text

    def _end_of_turn(self) -> tuple[int, ...]:
        """What the template writes after an answer, up to its first special token; else the end of sequence."""
        after = self._render_pieces(("user", "assistant"), generation_prompt=False)[-1]
        assert not isinstance(after, _Slot)
        for position, token in enumerate(after):
            if token in self._added:
                return tuple(after[: position + 1])
        if self._eos is None:
            raise UserError(f"model {self._name!r} names no end of turn: set eos_token in its tokenizer_config.json")
        return (self._eos,)


def load_tokenizer(model: str, revision: str | None = None, chat_template: str | None = None) -> ChatTokenizer:
    """The chat tokenizer of a model: a local directory or a Hub name. ``chat_template`` goes before its own.

    A process loads it once, for a vocabulary of 150,000 pieces takes 5 s of CPU; anew where files have changed.

    Raises:
        UserError: there is no such model, or it has no chat template that renders turns, and none is given that does.
    """
    files = sorted(Path(model).absolute().glob("*.[jmt]*"))  # .json, .jinja, .model, .txt: a tokenizer's kinds
    template = template_text(chat_template)
    return _load_tokenizer(model, revision, template, tuple((str(file), file.stat().st_mtime_ns) for file in files))


def template_text(chat_template: str | None) -> str | None:
    """The text of a chat template out of its file; a text, which has a ``{``, as it is.

    Jobs take the text along from their start: other nodes may not have the file, and it may change meanwhile. Raises
    UserError where there is no such file, or it is no text.
    """
    if chat_template is None or "{" in chat_template:
        return chat_template
    try:
        with storage.explained(chat_template):
            content = storage.read_bytes(chat_template)
    except UserError as error:
        raise UserError(f"chat_template: {error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    if "{" not in text:
        raise UserError(f"chat_template: {chat_template}: not a Jinja template in UTF-8: name another file")
    return text


@lru_cache(maxsize=4)
def _load_tokenizer(
    model: str, revision: str | None, template: str | None, _files: tuple[tuple[str, int], ...]
) -> ChatTokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except Exception as error:  # broken files end as KeyError, AttributeError or a bare Exception of Rust's
        raise UserError(
            f"model {model!r}: no tokenizer found ({first_line(error)}); give a directory with config.json and "
            "tokenizer.json, or a Hub name this machine can reach"
        ) from error
    if template is not None:
        tokenizer.chat_template = template
    return ChatTokenizer(tokenizer)


def _without_added_tokens(backend: Tokenizer, added: frozenset[int]) -> Tokenizer:
    """A copy for plain text in the middle of a prompt: it finds no added token and puts no space in front.

    ``encode_special_tokens`` would not do: it still finds added tokens that are not special, such as Qwen3's
    ``<think>``. White-space tokens (Gemma's newlines) stay.
    """
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["id"] not in added]
    spec["truncation"] = spec["padding"] = None
    spec["model"] = _hide(spec["model"], added)
    spec["normalizer"] = _without_prefix(spec["normalizer"])
    spec["pre_tokenizer"] = _without_prefix(spec["pre_tokenizer"])
    return Tokenizer.from_str(json.dumps(spec))


def _hide(model: dict[str, Any], ids: frozenset[int]) -> dict[str, Any]:
    """The model with some ids' entries renamed to what no text contains: a unigram model would find them again."""

    def hidden(token: str, i: int) -> str:
        return f"\ufdd0{i}\ufdd0" if i in ids else token

    if isinstance(model["vocab"], list):  # unigram: [piece, score] by id
        return {**model, "vocab": [[hidden(piece, i), score] for i, (piece, score) in enumerate(model["vocab"])]}
    vocab = {hidden(token, i): i for token, i in model["vocab"].items()}
    changed: dict[str, Any] = {"vocab": vocab}
    if "merges" in model:  # both sides of a merge and their result must be reachable
        pairs = [(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        reachable = [left in vocab and right in vocab and left + right in vocab for left, right in pairs]
        changed["merges"] = [m for m, is_reachable in zip(model["merges"], reachable, strict=True) if is_reachable]
    if model.get("unk_token") in model["vocab"]:
        changed["unk_token"] = hidden(model["unk_token"], model["vocab"][model["unk_token"]])
    return {**model, **changed}


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer that adds no space before the text (SentencePiece's dummy prefix)."""
    if step is None or step["type"] == "Prepend":
        return None
    parts = {"normalizers", "pretokenizers"} & step.keys()
    if parts:
        (name,) = parts
        return {**step, name: [part for part in map(_without_prefix, step[name]) if part]}
    changes = {"prepend_scheme": "never", "add_prefix_space": False}
    return {**step, **{k: v for k, v in changes.items() if k in step}}
