"""Whole flows of an unmodified public HaloPSA client against halosim.

The client is the package HaloPSA from PyPI. It insists on https://TENANT.halopsa.com, so
that name is resolved to the simulator here, whose certificate is issued for it.
"""

import base64
import json
import socket
import sys

ready = json.loads(sys.argv[1])
HOST, PORT = "demo.halopsa.com", int(ready["url"].rsplit(":", 1)[1])

real_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host, port, *args, **kwargs):
    if host == HOST:
        return real_getaddrinfo("127.0.0.1", PORT, *args, **kwargs)
    return real_getaddrinfo(host, port, *args, **kwargs)


socket.getaddrinfo = getaddrinfo

from HaloPSA.Halo import Halo  # noqa: E402

done = []


def step(name, ok, detail=""):
    if not ok:
        sys.exit(f"not as expected: {name}: {detail}")
    done.append(name)


def sign_in(secret):
    return Halo(tenant="demo", clientid=ready["client_id"], secret=secret, scope="all:standard all:teams admin:webhooks")


try:
    sign_in("wrong")
    step("a wrong secret is refused", False)
except ValueError as error:
    step("a wrong secret is refused", "invalid" in str(error), error)
halo = sign_in(ready["client_secret"])
step("sign in", True)

# Page through tickets.
ids, page = [], 1
while True:
    reply = halo.Tickets.search(pageinate=True, page_size=7, page_no=page, closed_only=True)
    if not reply["tickets"]:
        break
    step(f"page {page} of the tickets", len(reply["tickets"]) <= 7, reply)
    ids += [t["id"] for t in reply["tickets"]]
    page += 1
step("every ticket once", len(ids) == len(set(ids)) == reply["record_count"] > 7, (ids, reply["record_count"]))

# Create one, update it, read it.
user = halo.Users.search(search="kim.lee@acmedental.example")["users"][0]
step("find a user by e-mail", user["name"] == "Kim Lee" and isinstance(user["site_id"], float), user)
step("read that user", halo.Users.get(user["id"])["emailaddress"] == "kim.lee@acmedental.example")
ticket = halo.Tickets.update(summary="Scanner jams", details_html="<p>At <b>reception</b></p>", client_id=12, user_id=user["id"], tickettype_id=1)
step("create a ticket", ticket["id"] > 0 and ticket["user_name"] == "Kim Lee" and ticket["details"] == "At reception", ticket)
changed = halo.Tickets.update(id=ticket["id"], tickettype_id=1, client_id=12, agent_id=3, status_id=2)
step("update just its status and agent", changed["status_id"] == 2 and changed["summary"] == "Scanner jams", changed)
whole = halo.Tickets.get(ticket["id"], includedetails=True)
nulls = sum(1 for value in whole.values() if value is None)
step("a full object with its many nulls", whole["agent_id"] == 3 and nulls > 200, nulls)
step("search it", ticket["id"] in [t["id"] for t in halo.Tickets.search(search="scanner jams", open_only=True)["tickets"]])

# A private note, and who sees it.
note = halo.Actions.update(ticket_id=ticket["id"], outcome="Private Note", note_html="<p>Roller <i>worn</i></p>", hiddenfromuser=True)
step("add a private note", note["hiddenfromuser"] is True and note["note"] == "Roller worn" and note["id"] == 2, note)
seen = halo.Actions.search(ticket_id=ticket["id"], includehtmlnote=True)["actions"]
step("read it", seen[0]["note_html"] == "<p>Roller <i>worn</i></p>" and seen[0]["who"] == "Rallied Agent", seen)
public = halo.Actions.search(ticket_id=ticket["id"], excludeprivate=True)["actions"]
step("leave out private ones", [a["id"] for a in public] == [1], public)
try:
    halo.Actions.update(ticket_id=ticket["id"], note="no outcome")
    step("an action needs an outcome", False)
except ValueError as error:
    step("an action needs an outcome", "Outcome" in str(error), error)

# A file.
halo.Attachments.upload(ticket_id=ticket["id"], filename="log.txt", data_base64=base64.b64encode("größe".encode()).decode())
files = halo.Attachments.search(ticket_id=ticket["id"])["attachments"]
step("attach a file", files[0]["filename"] == "log.txt" and files[0]["filesize"] == 7, files)
data = halo.Attachments.get(files[0]["id"], includedetails=True)["data_base64"]
step("read the file", base64.b64decode(data).decode() == "größe", data)

# Lists with and without an envelope.
step("agents", {a["name"] for a in halo.Agents.search()} >= {"Dana Novak", "Luis Ortega"})
step("statuses", any(s["name"] == "In Progress" for s in halo.Status.search()))
step("teams", any(t["name"] == "1st Line Support" for t in halo.Teams.search()))
step("ticket types", any(t["name"] == "Incident" for t in halo.TicketTypes.search()))
step("clients", halo.Clients.search(search="acme")["clients"][0]["id"] == 12)
step("sites", halo.Sites.search(client_id=12)["record_count"] == 2)
step("assets", halo.Assets.search(client_id=12)["record_count"] == 10)
step("articles", any("Printer" in a["name"] for a in halo.KnowledgeBase.search(search="printer")["articles"]))

# A webhook: the client has no class for it, so its request function is used.
request, url = halo._mh._requester, halo._mh.url
hook = request("post", f"{url}/Webhook", {"name": "flow", "url": "https://receiver.example/x", "events": [{"eventno": 3}]})
step("create a webhook", len(hook["id"]) == 36 and hook["events"] == [], hook)
row = request("post", f"{url}/Notification", {"webhook_id": hook["id"], "type": -2, "delivery_method": 6, "eventno": "3"})
step("subscribe it", row["eventno"] == 3, row)
step("read it", [e["eventno"] for e in request("get", f"{url}/Webhook/{hook['id']}")["events"]] == [3])
step("update it", request("post", f"{url}/Webhook", {"id": hook["id"], "active": False})["name"] == "flow")
gone = halo._mh.session.delete(f"{url}/Webhook/{hook['id']}")
step("delete it", gone.status_code == 200 and halo._mh.session.get(f"{url}/webhook/{hook['id']}").status_code == 404, gone.status_code)
step("paths are case-insensitive", halo._mh.session.get(f"{url}/TICKETS/{ticket['id']}").json()["id"] == ticket["id"])

print(f"{len(done)} passed, 0 failed")
