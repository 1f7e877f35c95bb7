#!/usr/bin/env python3
"""A complete agent in 60 lines: claims a ticket, investigates, plans, acts, reports."""
import json, os, ssl, sys, threading, urllib.error, urllib.request

URL = os.environ["HALOPSA_GATEWAY_URL"]
TLS = ssl.create_default_context(cafile=os.environ.get("HALOPSA_GATEWAY_CA", "/var/run/halopsa/ca.crt"))
TOKEN_FILE = os.environ.get("HALOPSA_TOKEN_FILE", "/var/run/halopsa/token")


def post(path, body, **headers):
    with open(TOKEN_FILE) as file:  # the kubelet rotates it, so read it for every request
        headers["Authorization"] = "Bearer " + file.read().strip()
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, context=TLS, timeout=150) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def mcp(method, params):
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    answer = post("/mcp", message, **headers)
    if "error" in answer:
        raise RuntimeError(answer["error"]["message"])
    return answer["result"]


def call(tool, **arguments):
    result = mcp("tools/call", {"name": tool, "arguments": arguments})
    return result.get("structuredContent") or {"error": result["content"][0]["text"]}


def work_on(work):
    path, lease = "/v1/work/" + work["ticket"], {"leaseId": work["leaseId"]}
    stop = threading.Event()

    def heartbeats():
        while not stop.wait(work["leaseSeconds"] / 3):
            post(path + "/heartbeat", lease)

    threading.Thread(target=heartbeats, daemon=True).start()
    try:
        if work.get("turn", 0) > 0:
            return post(path + "/complete", {**lease, "message": "Thank you; the example agent is done."})
        similar = call("halopsa_search_tickets", query=work["context"]["subject"].split()[0]).get("tickets", [])
        plan = {"asked": work["context"]["subject"], "findings": [f"{len(similar)} similar tickets"], "steps": ["Set it In Progress"]}
        if work["mode"] == "Execute":
            post(path + "/plan", {**lease, "plan": plan})
            print(call("halopsa_update_ticket", status="In Progress", why="somebody is on it"), file=sys.stderr)
        post(path + "/complete", {**lease, "plan": plan})
    finally:
        stop.set()


while True:
    claimed = post("/v1/work/claim", {})
    if claimed:
        work_on(claimed)
