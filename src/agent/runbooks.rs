//! What the built-in brain knows: the usual problems of a help desk.
//!
//! Each is recognised by words and names the usual cause, what a technician
//! would do first, and what to ask. Written for experienced technicians: no
//! step that goes without saying.

/// A usual problem.
#[derive(Debug)]
pub struct Runbook {
    pub name: &'static str,
    /// Words that point to it, in lower case; a sign of two words counts double.
    pub signs: &'static [&'static str],
    pub cause: &'static str,
    pub steps: &'static [&'static str],
    pub questions: &'static [&'static str],
    /// A word to search tickets and articles for.
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
        cause: "The print queue or the spooler is stuck, or the printer's address has changed",
        steps: &[
            "Check from the print server that the printer responds (ping, web page)",
            "Check that the printer's port has its current address",
            "Restart the Print Spooler service and delete stuck jobs",
            "Print a test page from the server, then from the requester's workstation",
            "If the address has changed, reserve it in DHCP and correct the port",
        ],
        questions: &[
            "Is only this printer affected, and everybody or one workstation?",
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
            "Verify the requester's identity before changing anything on the account",
            "Check the account: locked, disabled, password expired, sign-in risk",
            "Find the source of failed sign-ins (phone, mapped drive, service) before unlocking",
            "Unlock or reset by the MSP's procedure; have the user sign in while on the phone",
        ],
        questions: &[
            "Which system refuses the sign-in, and with which message?",
            "When did it last work, and was the password changed recently?",
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
        cause: "A stale sign-in, a corrupt local profile, or a rule or quota on the mailbox",
        steps: &[
            "Check whether webmail works: if so, the problem is on the workstation",
            "Check service health, mailbox quota, rules and message trace for the mail in question",
            "Remove cached credentials, sign out of Office and in again",
            "If it persists, create a new Outlook profile and rebuild the search index",
        ],
        questions: &[
            "Does it work in webmail?",
            "Since when, and is all mail affected or one sender?",
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
        cause: "An outdated client, an unstable home network, or an expired certificate or licence",
        steps: &[
            "Check the VPN gateway's log for the requester's sessions: who ends them, and why",
            "Compare the client's version with the current one and update it",
            "Turn off power saving on the network adapter; test on another network (hotspot)",
            "Check that certificate and licence are valid",
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
        cause: "A faulty cable, switch port or access point, or a wrong address from DHCP",
        steps: &[
            "Find the extent: one device, one room or the site; check monitoring for the site",
            "Check the device's cable, port and address; compare with a neighbour that works",
            "For Wi-Fi, check channel, signal and number of clients on the access point",
            "Renew the address and flush DNS; try another port to tell the device from the line",
        ],
        questions: &[
            "Are colleagues near you affected, too?",
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
        cause: "A full disk, updates or indexing in the background, or too little memory",
        steps: &[
            "Check disk space, memory, processor use and uptime in monitoring",
            "Restart if the last restart was long ago; let pending updates finish",
            "Free disk space (temporary files, old profiles); check the disk's health",
            "Check start-up programs and the antivirus scan schedule",
        ],
        questions: &[
            "Is everything slow, or one program?",
            "Since when, and was anything installed or updated then?",
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
        cause: "A missing group membership, or a stale session that locks the file",
        steps: &[
            "Find the folder's owner and the group that grants the requested access",
            "Get the owner's approval in writing on this ticket",
            "Add the user to the group (not to the folder itself); have them sign out and in",
            "For locked files, close the stale session on the file server",
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
            "Create account and mailbox; assign licences and groups for the role",
            "Prepare the workstation; check that it is in stock or arrives before the start date",
            "Send the welcome sheet to the manager; set up MFA on the first day",
        ],
        questions: &[
            "What are the start date, manager and department?",
            "Whose access should be copied?",
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
            "Call the client's authorised contact on a known number to confirm closure and time",
            "At that time: block sign-in, end sessions, reset MFA methods",
            "Hand mailbox and files over to the person named; set an automatic reply",
            "Recover devices and licences",
        ],
        questions: &[
            "What are the exact date and time?",
            "Who takes over mailbox and files?",
        ],
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
        cause: "Phishing; the impact depends on whether anyone opened it or entered a password",
        steps: &[
            "Ask at once whether anyone opened a link or attachment or entered a password",
            "If so, treat it as an incident",
            "Trace the message to all recipients and remove it; block sender and URL",
            "If a password was entered: end sessions, reset it, check sign-ins and mailbox rules",
            "If anything was run, isolate the device and scan it",
        ],
        questions: &[
            "Did you open a link or attachment, or enter a password?",
            "Who else received it?",
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
        cause: "The wrong device is selected, or the driver lost it after docking or an update",
        steps: &[
            "Check the microphone, speaker and camera selected in the program; make a test call",
            "Check the privacy settings for microphone and camera in Windows",
            "Connect the device directly, without a dock; update its driver and firmware",
        ],
        questions: &[
            "Does it happen in one program only, or everywhere?",
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
        cause: "The phone has lost its registration, or call forwarding is on",
        steps: &[
            "Check the extension's registration and call forwarding in the phone system",
            "Restart the phone; check its switch port (power, voice network)",
            "Call in and out to tell the line from the device",
        ],
        questions: &[
            "Are incoming calls affected, outgoing calls, or both?",
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
        cause: "A request, or no licence is left",
        steps: &[
            "Check that the software is approved for this client and that a licence is available",
            "Check the system requirements against the requester's workstation",
            "Deploy it with the management tool; have the user confirm that it starts",
        ],
        questions: &[
            "Which version, and what for?",
            "Has your manager approved the cost?",
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
        cause: "Growing data or logs, or a service that did not restart after an update",
        steps: &[
            "Check monitoring: since when, and what changed then",
            "Find what fills the disk (logs, shadow copies, backups); free space, keep data",
            "Check the services that should run, and the event log around that time",
            "Check that the last backup is good before any larger change",
        ],
        questions: &["Which users or programs are affected?"],
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
        cause: "A driver or failing hardware; after an update most likely a driver",
        steps: &[
            "Read the stop code and the last event log entries before the crash",
            "Roll back or update the driver named; install firmware updates",
            "Test memory and disk; check temperature, power supply and dock",
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
        cause: "The device's password for the mail server or share is out of date",
        steps: &[
            "Send a test scan and read the device's own error log",
            "Check the account and the mail relay or share it sends to; update its password",
            "Check name resolution and the clock on the device",
        ],
        questions: &["Do you scan to e-mail or to a folder, and which message is shown?"],
        topic: "scan",
    },
];

/// The runbook whose signs occur most in the text, with its score. Signs in the
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
        // Of equal scores, the first in the table.
        .rev()
        .max_by_key(|(_, score)| *score)
}

/// Words in lower case with a space around each.
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
    const STOP_WORDS: [&str; 40] = [
        "a", "an", "the", "my", "our", "is", "are", "was", "to", "in", "on", "at", "of", "for",
        "and", "or", "not", "no", "with", "from", "since", "keeps", "please", "help", "cannot",
        "can't", "does", "doesn't", "has", "have", "it", "i", "we", "you", "this", "that",
        "urgent", "again", "asking", "re",
    ];
    let words = words(subject);
    words
        .split_whitespace()
        .filter(|w| w.len() > 2 && !STOP_WORDS.contains(w))
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
