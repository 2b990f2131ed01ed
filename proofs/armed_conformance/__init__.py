"""The conformance kit: real processes held to the model, step by step."""
