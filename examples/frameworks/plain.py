"""An agent without a framework: a loop of model and tool, which asks before each step."""

import json
import os
import urllib.request

from machineid_sidecar import NotAllowed, check

TOOL = {
    "type": "function",
    "function": {
        "name": "population",
        "description": "How many people live in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def population(city):
    print(f"tool: population of {city}", flush=True)
    return "755,000"


def complete(messages):
    base = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    body = {"model": os.environ.get("MODEL", "gpt-5-mini"), "messages": messages, "tools": [TOOL]}
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "content-type": "application/json"}
    request = urllib.request.Request(f"{base}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]


def main():
    messages = [{"role": "user", "content": "How many people live in Amsterdam?"}]
    while True:
        check()
        message = complete(messages)
        messages.append(message)
        if not message.get("tool_calls"):
            print(f"answer: {message['content']}")
            return
        for call in message["tool_calls"]:
            check()
            result = population(**json.loads(call["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


if __name__ == "__main__":
    try:
        main()
    except NotAllowed as no:
        no.exit()
