"""The demo: a pretrained language model with an adapter reads biomedical sentences for diseases, on a laptop."""
