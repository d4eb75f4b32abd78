"""The training job: a LoRA adapter from gold examples, with Ray Train."""
