"""Image engines beside diffusers: the components, and whole pictures of the same noise."""
