"""A user's script, without `if __name__ == "__main__"`: mypy reads it strictly, and a test runs it as it is."""

import sys

from ner_batch import EngineConfig, Entity, Extractor, Task, WindowsConfig, extract, highlight

folder, text = sys.argv[1:]
task = Task("people", {"PERSON": "people, by name"}, guidelines="Names alone, without titles.")
options = EngineConfig(model=f"{folder}/base", in_process=False, enforce_eager=True, cpu_kv_cache_gib=1)

with Extractor(adapter=f"{folder}/adapter", engine=options, windows=WindowsConfig(max_tokens=64)) as extractor:
    (prediction,) = extractor.predict([text])
    entities: tuple[Entity, ...] = prediction.entities
    print(highlight(text, entities))

ray = sys.modules.get("ray")
print("Ray runs:", ray is not None and ray.is_initialized())
predictions = extract((line for line in [text, None]), task, engine=options, score=True, format="inline")
print(type(predictions).__name__, "statuses to come")
