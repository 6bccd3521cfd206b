"""Outliers of activations shifted into the weights that read them, before these become int8."""
