"""What tutorials on input speed advise, a module for each section of docs/techniques.md.

Each has `run(settings)`, which measures and gives plain data, and `page(found)`, which makes Markdown tables of it.
"""
