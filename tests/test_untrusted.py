"""Files of strangers (a task, a config, an adapter, a base, an index) are data: nothing in them runs.

Pickles of adapters and bases: test_adapter.
"""

import pickle
import re

import numpy as np
import pytest

from ner_batch import config, retrieval
from ner_batch.data import Entity, Example
from ner_batch.errors import UserError
from ner_batch.retrieval.index import open_index
from ner_batch.task import load_task

EXAMPLES = [Example(str(n), f"Alice {n} met Bob", (Entity(0, 5, "PER", "Alice"),)) for n in range(20)]


class Touch:
    """What a stranger may hide in a pickle: a file that is written when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!include"])
def test_tags_of_yaml_are_refused(tmp_path, tag):
    """In a task and in a config, one line with the file."""
    file = tmp_path / "file.yaml"
    file.write_text(f"name: {tag} ['touch {tmp_path}/touched']\nlabels: [PER]\n")
    with pytest.raises(UserError, match=re.escape(str(file))):
        load_task(str(file))
    with pytest.raises(UserError, match=re.escape(str(file))):
        config.load(config.Config, file)
    assert not (tmp_path / "touched").exists()


def test_arrays_of_objects_are_refused(tmp_path):
    """NumPy's files can hold pickles; an index that does is refused, in one line, and nothing has run."""
    retrieval.build(EXAMPLES, "lexical", tmp_path / "index")
    files = sorted([*(tmp_path / "index").glob("*.npy"), *(tmp_path / "index").glob("*.npz")])
    assert files
    for file in files:
        before = file.read_bytes()
        with file.open("wb") as stream:
            evil = np.array([Touch(tmp_path / "touched")], dtype=object)
            if file.suffix == ".npy":
                np.save(stream, evil, allow_pickle=True)
            else:
                np.savez(stream, data=evil, indices=evil, indptr=evil, format=np.array(b"csr"), shape=np.array([1, 1]))
        with pytest.raises(UserError) as refusal:
            open_index(tmp_path / "index")
        assert str(refusal.value).startswith(str(tmp_path / "index"))
        assert len(str(refusal.value).splitlines()) == 1
        file.write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
        with pytest.raises(UserError):
            open_index(tmp_path / "index")
        file.write_bytes(before)
    assert not (tmp_path / "touched").exists()
    open_index(tmp_path / "index")
