.PHONY: docs test

# The API reference, from docstrings: docs/api/index.html.
docs:
	pip install -q ".[docs]"
	python docs/make_api.py

test:
	pytest -n auto --dist loadfile -m "not slow"
