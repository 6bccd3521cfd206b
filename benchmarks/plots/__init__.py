"""Plots of measurements as PNG files and as one page; matplotlib is imported only here."""
