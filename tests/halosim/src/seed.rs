//! Seed data: `demo` is realistic, `scale` is large.

use crate::auth::Application;
use crate::store::rows::{Brief, Ticket as BriefTicket, Tickets, Users};
use crate::store::{CLOSED_STATUS, Object, Store, number, object, stamp, text};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// The integration's application and API agent.
pub const CLIENT_ID: &str = "5b0c9d1e-2f34-4a56-8b78-9c0d1e2f3a4b";
pub const CLIENT_SECRET: &str =
    "0f1e2d3c-4b5a-4978-8f6e-5d4c3b2a1908-a1b2c3d4-e5f6-4789-90ab-cdef01234567";
pub const API_AGENT: i64 = 31;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seed {
    Demo,
    Scale {
        clients: u32,
        users: u32,
        tickets: u32,
    },
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seed::Demo => f.write_str("demo"),
            Seed::Scale {
                clients,
                users,
                tickets,
            } => write!(f, "scale:{clients}:{users}:{tickets}"),
        }
    }
}

/// The largest number in a seed.
const MAX: u32 = 10_000_000;

impl std::str::FromStr for Seed {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let mut parts = s.split(':');
        let number = |part: Option<&str>, default| match part.map(str::parse::<u32>) {
            None => Ok(default),
            Some(Ok(number)) if (1..=MAX).contains(&number) => Ok(number),
            Some(_) => Err(format!("the numbers in a seed must be from 1 to {MAX}")),
        };
        match parts.next() {
            Some("demo") => Ok(Seed::Demo),
            Some("scale") => Ok(Seed::Scale {
                clients: number(parts.next(), 1_000)?,
                users: number(parts.next(), 10_000)?,
                tickets: number(parts.next(), 100_000)?,
            }),
            _ => Err("the seed must be demo or scale[:CLIENTS[:USERS[:TICKETS]]]".into()),
        }
    }
}

pub fn applications() -> Vec<Application> {
    vec![Application {
        name: "Rallied Agent".into(),
        client_id: CLIENT_ID.into(),
        client_secret: CLIENT_SECRET.into(),
        scopes: ["all:standard", "all:teams", "admin:webhooks"]
            .map(str::to_string)
            .to_vec(),
        agent_id: API_AGENT,
        enabled: true,
    }]
}

pub fn make(seed: &Seed) -> Store {
    let mut store = Store::default();
    stock(&mut store);
    match seed {
        Seed::Demo => demo(&mut store),
        Seed::Scale {
            clients,
            users,
            tickets,
        } => scale(&mut store, *clients, *users, *tickets),
    }
    store
}

fn put(store: &mut Store, kind: &'static str, rows: Value) {
    for row in rows.as_array().cloned().unwrap_or_default() {
        store.put(kind, object(row));
    }
}

/// What a stock tenant has.
fn stock(store: &mut Store) {
    simple_lists(store);
    categories(store);
    lookups(store);
    priorities(store);
    agents(store);
}

fn simple_lists(store: &mut Store) {
    put(
        store,
        "client",
        json!([{"id": 1, "name": "Unknown", "toplevel_id": 1, "inactive": false, "main_site_id": 1}]),
    );
    put(
        store,
        "site",
        json!([{"id": 1, "name": "Unknown", "client_id": 1, "client_name": "Unknown", "inactive": false}]),
    );
    put(
        store,
        "team",
        json!([{"id": 1, "name": "1st Line Support", "forrequests": true}, {"id": 2, "name": "2nd Line Support", "forrequests": true}]),
    );
    put(
        store,
        "status",
        json!([
        {"id": 1, "name": "New", "shortname": "New", "type": 0}, {"id": 2, "name": "In Progress", "shortname": "In Prog", "type": 0},
        {"id": 4, "name": "With User", "shortname": "With User", "type": 0}, {"id": 8, "name": "Resolved", "shortname": "Resolved", "type": 0},
        {"id": CLOSED_STATUS, "name": "Closed", "shortname": "Closed", "type": 0},
        {"id": 23, "name": "Geschlossen", "shortname": "Geschl.", "type": 0}, {"id": 24, "name": "Clôturé", "shortname": "Clôturé", "type": 0}]),
    );
    put(
        store,
        "tickettype",
        json!([{"id": 1, "name": "Incident", "use": "ticket", "cancreate": true}, {"id": 3, "name": "Service Request", "use": "ticket", "cancreate": true}]),
    );
    put(
        store,
        "outcome",
        json!([
        {"id": 7, "outcome": "Private Note", "buttonname": "Private Note", "hidefromuser": true, "hidesendemail": true},
        {"id": 16, "outcome": "Email User", "buttonname": "Email User", "hidefromuser": false, "sendemail": 1},
        {"id": 20, "outcome": "Internal Note", "buttonname": "Internal Note", "hidefromuser": true}]),
    );
    put(
        store,
        "toplevel",
        json!([{"id": 1, "name": "Customers", "long_name": "Customers", "type": 1}]),
    );
    put(
        store,
        "assettype",
        json!([{"id": 1, "name": "Workstation", "assetgroup_id": 1}, {"id": 2, "name": "Printer", "assetgroup_id": 1}]),
    );
}

fn categories(store: &mut Store) {
    let categories = [
        "Hardware",
        "Hardware>Printer",
        "Network",
        "Network>VPN",
        "Software",
        "Software>Outlook",
        "Account",
        "Account>Access",
    ];
    for name in categories {
        store.put("category", object(json!({"category_name": name, "value": name, "type_id": 1, "guid": uuid::Uuid::new_v4().to_string()})));
    }
}

fn lookups(store: &mut Store) {
    // Look-ups share a table: HaloPSA's ids are unique per lookupid, here across all.
    for (lookup, names) in [
        (11, ["Incident", "Change", "Problem"]),
        (27, ["High", "Medium", "Low"]),
        (28, ["Company", "Department", "Person"]),
    ] {
        for (index, name) in names.iter().enumerate() {
            store.put("lookup", object(json!({"id": lookup * 100 + index as i64 + 1, "lookupid": lookup, "name": name, "sequence": index})));
        }
    }
}

fn priorities(store: &mut Store) {
    let priorities = ["Critical", "High", "Medium", "Low"];
    for (index, name) in priorities.iter().enumerate() {
        // The row's own id is a UUID on the wire; the number tickets use is priorityid.
        let id = store.put(
            "priority",
            object(json!({"name": name, "slaid": 1, "priorityid": index + 1, "ishidden": false})),
        );
        if let Some(row) = store.get_mut("priority", id) {
            row.insert("id".into(), uuid::Uuid::new_v4().to_string().into());
        }
    }
}

fn agents(store: &mut Store) {
    put(
        store,
        "agent",
        json!([
        {"id": 1, "name": "Unassigned", "initials": "U", "isdisabled": false, "isapiagent": false},
        {"id": 3, "name": "Dana Novak", "firstname": "Dana", "surname": "Novak", "initials": "DN", "email": "dana.novak@northwind-msp.example", "team": "1st Line Support", "isdisabled": false, "isapiagent": false},
        {"id": 4, "name": "Luis Ortega", "firstname": "Luis", "surname": "Ortega", "initials": "LO", "email": "luis.ortega@northwind-msp.example", "team": "2nd Line Support", "isdisabled": false, "isapiagent": false},
        {"id": API_AGENT, "name": "Rallied Agent", "firstname": "Rallied", "surname": "Agent", "initials": "RA", "email": "rallied@northwind-msp.example", "isdisabled": false, "isapiagent": true}]),
    );
}

struct Company {
    id: i64,
    name: &'static str,
    domain: &'static str,
    sites: [&'static str; 2],
    people: [&'static str; 10],
}

const COMPANIES: [Company; 3] = [
    Company {
        id: 12,
        name: "Acme Dental Group",
        domain: "acmedental.example",
        sites: ["Main Street Practice", "Riverside Practice"],
        people: [
            "Kim Lee",
            "Priya Raman",
            "Tom Becker",
            "Aisha Khan",
            "Marcus Hill",
            "Elena Petrova",
            "Jon Svensson",
            "Grace Otieno",
            "Noah Fischer",
            "Lucy Chen",
        ],
    },
    Company {
        id: 13,
        name: "Blue Harbor Logistics",
        domain: "blueharbor.example",
        sites: ["Harbor Office", "Warehouse 4"],
        people: [
            "Sam Whitaker",
            "Ines Duarte",
            "Karl Lindqvist",
            "Mei Tanaka",
            "Omar Haddad",
            "Rosa Jimenez",
            "Peter Vogel",
            "Hannah Brooks",
            "Ivan Marić",
            "Zoe Laurent",
        ],
    },
    Company {
        id: 14,
        name: "Cedar & Finch Law",
        domain: "cedarfinch.example",
        sites: ["City Chambers", "Court Annex"],
        people: [
            "Olivia Finch",
            "Daniel Cedar",
            "Fatima Noor",
            "Greg O'Brien",
            "Nina Kowalski",
            "Paul Adeyemi",
            "Sofia Rossi",
            "Ben Carter",
            "Yuki Mori",
            "Claire Dubois",
        ],
    },
];

/// Typical past tickets: summary, details, solution.
const PAST: [(&str, &str, &str); 16] = [
    (
        "Printer on reception is offline",
        "The label printer at the front desk shows offline since this morning. Nobody can print.",
        "Print spooler had hung on the print server; restarted the spooler and cleared two stuck jobs.",
    ),
    (
        "Cannot print to the second floor printer",
        "Jobs go into the queue and nothing comes out.",
        "The printer had got a new address by DHCP; set a reservation and updated the port.",
    ),
    (
        "Outlook keeps asking for password",
        "Since the weekend Outlook asks for my password every few minutes.",
        "Stale token after a password change: signed out of Office, removed the cached credential, signed in again.",
    ),
    (
        "Outlook search finds nothing",
        "Searching my mailbox returns no results.",
        "Rebuilt the search index; results were back after an hour.",
    ),
    (
        "VPN drops every ten minutes",
        "Working from home, the VPN disconnects all the time.",
        "Old VPN client; updated to the current version and disabled power saving of the network adapter.",
    ),
    (
        "No internet at the desk",
        "My PC says no network, colleagues are fine.",
        "Patch cable was loose at the wall outlet; replaced the cable.",
    ),
    (
        "Laptop very slow since update",
        "Everything takes minutes to open since the update last night.",
        "Update was still indexing and disk was 97 % full; cleaned up temporary files, moved the mail archive.",
    ),
    (
        "Shared folder access for new colleague",
        "Please give our new colleague access to the Finance folder.",
        "Approved by the manager, added to group FS-Finance-RW.",
    ),
    (
        "Teams has no sound in calls",
        "Nobody hears me in Teams calls, other apps are fine.",
        "Wrong microphone selected after docking; set the headset as default device.",
    ),
    (
        "New starter on Monday",
        "A new colleague starts on Monday and needs an account, a laptop and a mailbox.",
        "Account created from the starter form, laptop imaged, welcome sheet sent to the manager.",
    ),
    (
        "Suspicious e-mail with an invoice",
        "I got an invoice from a supplier we don't know, with a zip file.",
        "Phishing: message removed from all mailboxes, sender blocked, user had not opened it.",
    ),
    (
        "Blue screen on the meeting room PC",
        "The meeting room PC shows a blue screen when the projector is connected.",
        "Graphics driver updated; no blue screen in three test connections.",
    ),
    (
        "Scanner does not send to e-mail",
        "Scan to e-mail says authentication failed.",
        "Basic authentication was switched off; configured the scanner with the relay connector.",
    ),
    (
        "Wi-Fi is slow in the waiting room",
        "Patients complain that the guest Wi-Fi is slow.",
        "Access point was on a crowded channel; moved it to channel 11 and updated the firmware.",
    ),
    (
        "Excel file locked for editing by another user",
        "The planning sheet says it is locked by somebody who left last year.",
        "Closed the stale session on the file server.",
    ),
    (
        "Disk space warning on the file server",
        "The monitoring reports less than 5 % free on drive D.",
        "Removed old shadow copies and extended the volume by 200 GB.",
    ),
];

fn demo(store: &mut Store) {
    let (mut site_id, mut user_id, mut asset_id) = (18, 70, 400);
    for company in &COMPANIES {
        store.put(
            "client",
            object(json!({
                "id": company.id, "name": company.name, "toplevel_id": 1, "toplevel_name": "Customers", "inactive": false,
                "main_site_id": site_id, "colour": "#2bd3c6", "is_vip": false,
            })),
        );
        let first_site = site_id;
        for site in company.sites {
            store.put(
                "site",
                object(
                    json!({"id": site_id, "name": site, "client_id": company.id, "client_name": company.name, "inactive": false, "timezone": "UTC"}),
                ),
            );
            site_id += 1;
        }
        for (index, person) in company.people.iter().enumerate() {
            let (first, last) = person.split_once(' ').unwrap_or((person, ""));
            let login: String = person
                .to_lowercase()
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == ' ')
                .collect::<String>()
                .replace(' ', ".");
            let site = first_site + (index % 2) as i64;
            store.put("users", object(json!({
                "id": user_id, "name": person, "firstname": first, "surname": last, "emailaddress": format!("{login}@{}", company.domain), "login": login,
                "phonenumber": format!("+1 555 01{user_id:02} 1{index:02}"), "site_id": site, "site_name": company.sites[index % 2],
                "client_id": company.id, "client_name": company.name, "inactive": false, "isimportantcontact": index == 0,
                "department": (["Front Office", "Accounts", "Operations"])[index % 3],
            })));
            store.put("asset", object(json!({
                "id": asset_id, "inventory_number": format!("WS-{asset_id}"), "key_field": "Latitude 5450", "assettype_id": 1, "assettype_name": "Workstation",
                "client_id": company.id, "client_name": company.name, "site_id": site, "username": person, "inactive": false, "status_name": "In use",
            })));
            user_id += 1;
            asset_id += 1;
        }
    }
    put(
        store,
        "kbarticle",
        json!([
        {"id": 1, "name": "Printer offline: first checks", "description": "A network printer shows offline.", "resolution": "1. Power and cable. 2. Ping the printer. 3. Restart the print spooler on the server. 4. Check the port's address against DHCP.", "tag_string": "printer,print,spooler", "inactive": false, "kbentryclientaccess": [], "kbentrytoplevelaccess": []},
        {"id": 2, "name": "Outlook keeps asking for a password", "description": "Repeated credential prompts after a password change.", "resolution": "Remove cached credentials in Credential Manager, sign out of Office, sign in again. Check modern authentication.", "tag_string": "outlook,password,credential", "inactive": false, "kbentryclientaccess": [], "kbentrytoplevelaccess": []},
        {"id": 3, "name": "VPN disconnects", "description": "Client VPN drops.", "resolution": "Update the client, check the adapter's power saving, try another network.", "tag_string": "vpn,remote", "inactive": false, "kbentryclientaccess": [], "kbentrytoplevelaccess": []},
        {"id": 4, "name": "Printer codes of Blue Harbor", "description": "Release codes of the printers in the warehouse.", "resolution": "The release code of the label printer is 4711.", "tag_string": "printer,code", "inactive": false, "kbentryclientaccess": [{"id": 1, "client_id": 13, "client_name": "Blue Harbor Logistics", "kb_id": 4}], "kbentrytoplevelaccess": []}]),
    );
    let start = Timestamp::now() - SignedDuration::from_hours(24 * 90);
    for (index, (summary, details, solution)) in PAST.iter().enumerate() {
        let company = &COMPANIES[index % COMPANIES.len()];
        past(store, company.id, index, summary, details, solution, start);
    }
    // Every client has had a printer and an Outlook problem, to compare new tickets with.
    for (index, company) in COMPANIES.iter().enumerate() {
        let (summary, details, solution) = PAST[0];
        past(
            store,
            company.id,
            40 + index,
            summary,
            details,
            solution,
            start,
        );
        let (summary, details, solution) = PAST[2];
        past(
            store,
            company.id,
            50 + index,
            summary,
            details,
            solution,
            start,
        );
    }
}

fn past(
    store: &mut Store,
    client: i64,
    index: usize,
    summary: &str,
    details: &str,
    solution: &str,
    start: Timestamp,
) {
    let users: Vec<&Object> = store
        .kind("users")
        .into_iter()
        .flat_map(|u| u.values())
        .filter(|u| number(u, "client_id") == Some(client))
        .collect();
    let Some(user) = users.get(index % users.len().max(1)).copied().cloned() else {
        return;
    };
    let opened = start + SignedDuration::from_hours(index as i64 * 24);
    let closed = opened + SignedDuration::from_hours(3);
    let id = 4000 + index as i64;
    store.put("tickets", object(json!({
        "id": id, "summary": summary, "details": details, "client_id": client, "client_name": text(&user, "client_name"),
        "site_id": user["site_id"], "site_name": user["site_name"], "user_id": user["id"], "user_name": user["name"], "user_email": user["emailaddress"],
        "status_id": CLOSED_STATUS, "status_name": "Closed", "tickettype_id": 1, "tickettype_name": "Incident", "sla_id": 1, "priority_id": 3, "priority_name": "Medium",
        "agent_id": 3, "team_id": 1, "team": "1st Line Support", "category_1": "", "dateoccurred": stamp(opened), "datecreated": stamp(opened),
        "dateclosed": stamp(closed), "last_update": stamp(closed), "lastactiondate": stamp(closed), "hasbeenclosed": true, "closure_note": solution,
        "onhold": false, "flagged": false, "read": true, "customfields": [],
    })));
}

fn scale(store: &mut Store, clients: u32, users: u32, tickets: u32) {
    for client in 0..i64::from(clients) {
        let (id, name) = (100 + client, format!("Client {client:05}"));
        store.put("client", object(json!({"id": id, "name": name, "toplevel_id": 1, "inactive": false, "main_site_id": id})));
        store.put("site", object(json!({"id": id, "name": "Main", "client_id": id, "client_name": name, "inactive": false})));
    }
    let users = Users {
        first: 1000,
        count: users,
        first_client: 100,
        clients,
    };
    store.seed("users", Brief::Users(users));
    // The same seed gives the same tickets.
    let mut dice = rand::rngs::StdRng::seed_from_u64(42);
    let start = Timestamp::now() - SignedDuration::from_hours(24 * 365);
    let rows = (0..tickets)
        .map(|ticket| {
            // One in twenty is open, mostly recent ones.
            let open =
                ticket + tickets / 20 >= tickets && dice.random_bool(0.6) || dice.random_bool(0.02);
            BriefTicket {
                user: dice.random_range(0..users.count),
                minute: (u64::from(ticket) * 365 * 24 * 60 / u64::from(tickets)) as u32,
                template: dice.random_range(0..PAST.len() as u8),
                status: if open {
                    [1, 2, 4][dice.random_range(0..3)]
                } else {
                    CLOSED_STATUS as u8
                },
                priority: [1, 2, 3, 3, 3, 4][dice.random_range(0..6)],
                agent: if open && dice.random_bool(0.3) {
                    1
                } else {
                    [3, 4][dice.random_range(0..2)]
                },
            }
        })
        .collect();
    store.seed(
        "tickets",
        Brief::Tickets(Tickets {
            first: 10_000,
            start,
            rows,
            users,
            templates: &PAST,
        }),
    );
}
