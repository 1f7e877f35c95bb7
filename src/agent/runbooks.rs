//! What the built-in brain knows: the kinds of trouble help desks see.
//!
//! Each is recognised by words and says what usually causes it, what a
//! technician would do first, and what to ask. Written for people who have done
//! this before: no step that goes without saying.

/// A kind of trouble.
#[derive(Debug)]
pub struct Runbook {
    pub name: &'static str,
    /// Words that point to it, in lower case; those with two words count double.
    pub signs: &'static [&'static str],
    pub cause: &'static str,
    pub steps: &'static [&'static str],
    pub questions: &'static [&'static str],
    /// A word to look for in tickets, assets and articles.
    pub topic: &'static str,
}

pub const RUNBOOKS: [Runbook; 16] = [
    Runbook {
        name: "printing",
        signs: &[
            "print",
            "printer",
            "printing",
            "printers",
            "toner",
            "spooler",
            "label printer",
            "cannot print",
            "paper jam",
            "print queue",
        ],
        cause: "The print queue or the spooler is stuck, or the printer is reachable under another address than its port says",
        steps: &[
            "Check on the print server that the printer answers (ping, web page) and that its port has its present address",
            "Restart the Print Spooler service and delete stuck jobs",
            "Print a test page from the server, then from the requester's workstation",
            "If the address had changed, reserve it in DHCP and correct the port",
        ],
        questions: &[
            "Does it concern this printer only, and everybody or one workstation?",
            "Does the printer's display show a message?",
        ],
        topic: "printer",
    },
    Runbook {
        name: "sign-in and passwords",
        signs: &[
            "password",
            "locked",
            "lockout",
            "locked out",
            "log in",
            "login",
            "sign in",
            "signin",
            "credential",
            "expired password",
            "mfa",
            "authenticator",
            "two factor",
            "verification code",
        ],
        cause: "The account is locked, the password has expired, or a device still uses an old one",
        steps: &[
            "Verify the requester's identity before anything is changed on the account",
            "Look at the account: locked, disabled, password expired, sign-in risk",
            "Look for the source of failed sign-ins (phone, mapped drive, service) before unlocking",
            "Unlock or reset by the MSP's procedure; have the user sign in while on the phone",
        ],
        questions: &[
            "Which system refuses the sign-in, and with which message?",
            "When did it work last, and was the password changed recently?",
        ],
        topic: "password",
    },
    Runbook {
        name: "e-mail",
        signs: &[
            "outlook",
            "email",
            "e-mail",
            "mailbox",
            "mail",
            "exchange",
            "calendar",
            "shared mailbox",
            "bounce",
            "undeliverable",
            "not receiving",
        ],
        cause: "A stale sign-in or a damaged local profile, or a rule or quota on the mailbox",
        steps: &[
            "Check whether webmail works: if so, the trouble is on the workstation",
            "Check service health, mailbox quota, rules and message trace for the mail in question",
            "Remove cached credentials, sign out of Office and in again",
            "If it persists, make a new Outlook profile and rebuild the search index",
        ],
        questions: &[
            "Does it work in webmail?",
            "Since when, and does it concern all mail or one sender?",
        ],
        topic: "outlook",
    },
    Runbook {
        name: "VPN and remote work",
        signs: &[
            "vpn",
            "remote desktop",
            "rdp",
            "working from home",
            "home office",
            "remote access",
            "disconnects",
            "citrix",
            "tunnel",
        ],
        cause: "An outdated client or an unstable home network; at times an expired certificate or licence",
        steps: &[
            "Look at the VPN gateway's log for the requester's sessions: who ends them, and why",
            "Compare the client's version with the current one and update it",
            "Switch off power saving of the network adapter; test on another network (hotspot)",
            "Check certificate and licence validity",
        ],
        questions: &[
            "Which network are you on, and does a phone hotspot make a difference?",
            "Does the connection drop at regular times?",
        ],
        topic: "vpn",
    },
    Runbook {
        name: "network",
        signs: &[
            "internet",
            "network",
            "wifi",
            "wi-fi",
            "wlan",
            "no connection",
            "offline",
            "ethernet",
            "router",
            "switch",
            "dns",
            "slow internet",
        ],
        cause: "A cable, switch port or access point, or a wrong address from DHCP",
        steps: &[
            "Find out how far it goes: one device, one room, or the site; check monitoring for the site",
            "Check cable, port and address of the device; compare with a neighbour that works",
            "For Wi-Fi look at channel, signal and number of clients on the access point",
            "Renew the address, flush DNS; move to another port to tell device from line",
        ],
        questions: &[
            "Are colleagues near you affected too?",
            "Cable or Wi-Fi, and what exactly does not work?",
        ],
        topic: "network",
    },
    Runbook {
        name: "slow computer",
        signs: &[
            "slow",
            "freeze",
            "freezes",
            "frozen",
            "hangs",
            "takes minutes",
            "performance",
            "not responding",
            "very slow",
        ],
        cause: "Full disk, updates or indexing in the background, or too little memory for what runs",
        steps: &[
            "Look at disk space, memory and processor use in monitoring, and at the uptime",
            "Restart once if that was long ago; let pending updates finish",
            "Free disk space (temporary files, old profiles); check the disk's health",
            "Look at start-up programs and the antivirus scan schedule",
        ],
        questions: &[
            "Is it slow in everything or in one program?",
            "Since when, and was something installed or updated then?",
        ],
        topic: "slow",
    },
    Runbook {
        name: "files and access",
        signs: &[
            "shared folder",
            "folder",
            "permission",
            "permissions",
            "access to",
            "access denied",
            "file share",
            "sharepoint",
            "onedrive",
            "drive",
            "network drive",
            "locked for editing",
            "restore",
        ],
        cause: "A missing group membership, or a stale session that holds the file",
        steps: &[
            "Find the folder's owner and the group that grants the access asked for",
            "Get the owner's approval in writing on this ticket",
            "Add the user to the group (not to the folder itself); have them sign out and in",
            "For locked files close the stale session on the file server",
        ],
        questions: &[
            "Which folder exactly (path), and read or write access?",
            "Who is responsible for the folder?",
        ],
        topic: "folder",
    },
    Runbook {
        name: "new starter",
        signs: &[
            "new starter",
            "new employee",
            "new colleague",
            "new hire",
            "onboarding",
            "starts on",
            "new user",
            "joins us",
        ],
        cause: "A request, not a fault",
        steps: &[
            "Get the completed starter form: name, start date, manager, department, role to copy",
            "Create account and mailbox, assign licences and groups by the role",
            "Prepare the workstation; check that stock or order fits the start date",
            "Send the welcome sheet to the manager; set up MFA on the first day",
        ],
        questions: &[
            "Start date, manager and department?",
            "Whose access should it be like?",
        ],
        topic: "starter",
    },
    Runbook {
        name: "leaver",
        signs: &[
            "leaver",
            "offboarding",
            "last day",
            "left the company",
            "leaves us",
            "terminated",
            "disable account",
            "no longer works",
        ],
        cause: "A request, not a fault",
        steps: &[
            "Confirm with the client's authorised contact, by a known number, that and when the account is to be closed",
            "At that time: block sign-in, end sessions, reset MFA methods",
            "Hand mailbox and files to the person named; set an automatic reply",
            "Recover devices and licences",
        ],
        questions: &["Exact date and time?", "Who takes over mailbox and files?"],
        topic: "leaver",
    },
    Runbook {
        name: "suspicious mail and security",
        signs: &[
            "phishing",
            "suspicious",
            "virus",
            "malware",
            "ransomware",
            "hacked",
            "spam",
            "clicked a link",
            "strange email",
            "suspicious e-mail",
            "scam",
            "zip file",
        ],
        cause: "Phishing; how bad it is depends on whether somebody opened it or entered a password",
        steps: &[
            "Ask at once whether a link or attachment was opened or a password entered; if so, treat it as an incident",
            "Trace the message to all recipients and remove it from the mailboxes; block sender and URL",
            "If a password was entered: end sessions, reset the password, look at sign-ins and mailbox rules",
            "Isolate the device if something was run; scan it",
        ],
        questions: &[
            "Did you open a link or attachment, or enter a password?",
            "Who else has got it?",
        ],
        topic: "phishing",
    },
    Runbook {
        name: "calls and meetings",
        signs: &[
            "teams",
            "zoom",
            "microphone",
            "headset",
            "camera",
            "no sound",
            "audio",
            "meeting room",
            "video call",
            "projector",
        ],
        cause: "The wrong device is selected, or a driver lost the device after docking or an update",
        steps: &[
            "Check in the call program which microphone, speaker and camera are selected; make a test call",
            "Check privacy settings for microphone and camera in Windows",
            "Plug the device in directly, without dock; update its driver and firmware",
        ],
        questions: &[
            "In one program only, or everywhere?",
            "Which headset or dock is it?",
        ],
        topic: "teams",
    },
    Runbook {
        name: "telephone",
        signs: &[
            "phone system",
            "telephone",
            "desk phone",
            "voicemail",
            "extension",
            "call forwarding",
            "voip",
            "cannot call",
        ],
        cause: "The phone has lost its registration, or a forwarding is set",
        steps: &[
            "Check the extension's registration and forwardings in the phone system",
            "Restart the phone; check its switch port (power, voice network)",
            "Call in and out to tell line from device",
        ],
        questions: &[
            "Incoming, outgoing, or both?",
            "What does the display show?",
        ],
        topic: "phone",
    },
    Runbook {
        name: "software installation",
        signs: &[
            "install",
            "installation",
            "software",
            "licence",
            "license",
            "update",
            "upgrade",
            "application",
            "new version",
            "adobe",
            "activation",
        ],
        cause: "A request, or a licence that is used up",
        steps: &[
            "Check that the software is approved for this client and that a licence is free",
            "Check system requirements against the requester's workstation",
            "Deploy by the management tool; have the user confirm that it starts",
        ],
        questions: &[
            "Which version, and for which work?",
            "Has your manager agreed to the cost?",
        ],
        topic: "install",
    },
    Runbook {
        name: "server and storage",
        signs: &[
            "server",
            "disk space",
            "backup",
            "backup failed",
            "database",
            "monitoring",
            "service stopped",
            "sql",
            "disk full",
        ],
        cause: "Growth of data or logs, or a service that did not come back after an update",
        steps: &[
            "Look at monitoring: since when, and what changed then",
            "Find what fills the disk (logs, shadow copies, backups); free space without deleting data",
            "Check the services that should run, and the event log around the time",
            "Check that the last backup is good before anything bigger is done",
        ],
        questions: &["Which users or programs notice it?"],
        topic: "server",
    },
    Runbook {
        name: "crash",
        signs: &[
            "blue screen",
            "bluescreen",
            "crash",
            "crashes",
            "restarts",
            "shuts down",
            "does not start",
            "won't start",
            "wont turn on",
            "black screen",
        ],
        cause: "A driver or a failing part; after an update most likely a driver",
        steps: &[
            "Read the stop code and the last event log entries before the crash",
            "Undo or update the driver named; install firmware updates",
            "Test memory and disk; check temperature and power supply or dock",
        ],
        questions: &[
            "What does the screen say (a photo helps)?",
            "Does it happen with one program or device connected?",
        ],
        topic: "screen",
    },
    Runbook {
        name: "scanning",
        signs: &[
            "scan",
            "scanner",
            "scan to",
            "scan to email",
            "copier",
            "mfp",
        ],
        cause: "The device's sign-in to mail or share is out of date",
        steps: &[
            "Send a test scan and read the device's own error log",
            "Check the account and the mail relay or share it sends to; renew its password",
            "Check name resolution and time on the device",
        ],
        questions: &["To e-mail or to a folder, and which message is shown?"],
        topic: "scan",
    },
];

/// The runbook whose signs stand in the text most, with its score. Signs in the
/// subject count more than those in the details.
pub fn find(subject: &str, details: &str) -> Option<(&'static Runbook, usize)> {
    let (subject, details) = (words(subject), words(details));
    RUNBOOKS
        .iter()
        .map(|book| {
            let score = |text: &str, weight: usize| -> usize {
                book.signs
                    .iter()
                    .filter(|sign| text.contains(&format!(" {sign} ")))
                    .map(|sign| weight * (1 + sign.matches(' ').count()))
                    .sum()
            };
            (book, score(&subject, 3) + score(&details, 1))
        })
        .filter(|(_, score)| *score > 0)
        // Of equals the first in the table.
        .rev()
        .max_by_key(|(_, score)| *score)
}

/// Words in lower case with a blank around each.
fn words(text: &str) -> String {
    let mut out = String::from(" ");
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '\'') {
        if !word.is_empty() {
            out.push_str(&word.to_lowercase());
            out.push(' ');
        }
    }
    out
}

/// The words of a subject worth searching for.
pub fn keywords(subject: &str) -> Vec<String> {
    const EMPTY: [&str; 40] = [
        "a", "an", "the", "my", "our", "is", "are", "was", "to", "in", "on", "at", "of", "for",
        "and", "or", "not", "no", "with", "from", "since", "keeps", "please", "help", "cannot",
        "can't", "does", "doesn't", "has", "have", "it", "i", "we", "you", "this", "that",
        "urgent", "again", "asking", "re",
    ];
    let words = words(subject);
    words
        .split_whitespace()
        .filter(|w| w.len() > 2 && !EMPTY.contains(w))
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_subjects_find_their_runbook() {
        for (subject, details, name) in [
            (
                "Printer on reception is offline",
                "Nobody can print.",
                "printing",
            ),
            (
                "Outlook keeps asking for password",
                "Since the weekend Outlook asks for my mail password.",
                "e-mail",
            ),
            (
                "Locked out",
                "I cannot log in, my account is locked",
                "sign-in and passwords",
            ),
            (
                "VPN drops every ten minutes",
                "Working from home",
                "VPN and remote work",
            ),
            (
                "Laptop very slow since update",
                "Everything takes minutes",
                "slow computer",
            ),
            ("Teams has no sound in calls", "", "calls and meetings"),
            (
                "New starter on Monday",
                "A new colleague starts on Monday",
                "new starter",
            ),
            (
                "Suspicious e-mail with an invoice",
                "there is a zip file",
                "suspicious mail and security",
            ),
            (
                "Scanner does not send to e-mail",
                "scan to email fails",
                "scanning",
            ),
            (
                "Access to shared folder",
                "please give me access to Finance",
                "files and access",
            ),
        ] {
            assert_eq!(
                find(subject, details).map(|(b, _)| b.name),
                Some(name),
                "{subject}"
            );
        }
        assert!(find("Question about lunch", "where do we eat").is_none());
    }

    #[test]
    fn words_worth_searching() {
        assert_eq!(
            keywords("RE: Printer on reception is offline!"),
            ["printer", "reception", "offline"]
        );
    }
}
