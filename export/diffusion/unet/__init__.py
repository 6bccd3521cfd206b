"""The UNet that removes noise, `UNet2DConditionModel`."""
