"""Text and entities to prompts, answers to entities: formats, wording, chat template."""
