"""Hands out a finished adapter, and what is to be said of its run.

In reading order: `adapter` (writes and loads it), `onnx` (as a graph), `one_rank`, `vllm` and `llama_cpp` (for those
servers), `forms` (all of these by name), `model_card` (the card beside it), `loading_code` (the card's code),
`served_card` (the card of what other servers run), `trust` (whom the promise rests on), `plugins` (whose code took
part), `run_report` (the facts of a run's report).
"""
