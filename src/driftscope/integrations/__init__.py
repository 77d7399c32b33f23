"""The monitor inside other people's trainers: `hf_trainer` and `lightning`."""
