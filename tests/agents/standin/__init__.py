"""A stand-in model server for real agent programs: it speaks the model APIs, and what it says is written in the prompt.

An agent that is pointed at it needs no account and no network. The prompt holds a marker (`script.py`) which says what commands
the agent's shell tool shall run; the server answers with these tool calls, one a request, and then with a text.

    python3 -m standin [--port N] [--log FILE]          from tests/agents; prints its base URL on standard output

One module for each API reads a request into a `Conversation` and writes a `Reply` in that API's form, whole or as a stream:
`anthropic` (Messages), `openai_chat` (chat completions), `openai_responses`, `gemini`. `script` decides, and knows none of them.
"""
