"""Image models side by side: Enginery, diffusers and OpenVINO on one checkpoint."""
