"""What the diffusion transformers share: patches, modulated norms, joint attention, rotations."""
