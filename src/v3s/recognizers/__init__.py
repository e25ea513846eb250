"""Recognizers: networks with a classifier, their calibration, and their predictions on other videos."""
