"""The engine beside llama.cpp and onnxruntime-genai: same checkpoint, same workload, one run."""
