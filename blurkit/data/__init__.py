"""Datasets: layouts, lists, blur synthesis, and the crops that training reads."""
