# Shared by the demo and the end-to-end tests; source it from the repository's root.
set -euo pipefail
export PATH="$PWD/.local/bin:$PATH"
OPERATOR_NS=halopsa-system
MSP_NS=msp-northwind
SIM_NS=halosim

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf '\033[1;31mFAILED:\033[0m %s\n' "$*" >&2; exit 1; }

# until_ok SECONDS WHAT COMMAND...: waits until the command succeeds.
until_ok() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "$what: not after $seconds s"
    sleep 0.3
  done
}

# for_us: applies a Secret from standard input, labelled so that the operator may use it.
for_us() { kubectl label --local -f - rallied.ai/use=true -o yaml | kubectl apply -f - >/dev/null; }

# sim COMMAND...: the simulator's own command line, where it runs.
sim() { kubectl -n $SIM_NS exec -i deploy/halosim -- /usr/local/bin/halosim "$@"; }

# condition KIND NAME TYPE: "status reason message" of a condition.
condition() {
  kubectl -n $MSP_NS get "$1" "$2" -o jsonpath="{range .status.conditions[?(@.type=='$3')]}{.status} {.reason} {.message}{end}"
}

# has_condition KIND NAME TYPE PATTERN
has_condition() { condition "$1" "$2" "$3" | grep -qE "$4"; }

# new_ticket CLIENT USER SUMMARY DETAILS: prints HaloPSA's id.
new_ticket() {
  jq -nc --arg c "$1" --arg u "$2" --arg s "$3" --arg d "$4" '{client:$c,user:$u,summary:$s,details:$d}' | sim post tickets | jq -r .id
}

# our_notes TICKET: how many notes the operator wrote on it.
our_notes() { sim get "tickets/$1/actions" | jq '[.[] | select(.actionby_application_id == "Rallied Agent")] | length'; }
has_one_note() { [ "$(our_notes "$1")" = 1 ]; }

# read_notes TICKET: the operator's actions on it, as a technician reads them.
read_notes() {
  sim get "tickets/$1/actions" | jq -r '.[] | select(.actionby_application_id == "Rallied Agent") |
    "--- \(.outcome), by \(.who), \(if .hiddenfromuser then "internal" else "to the requester" end)", .note_html' |
    sed -E 's#</?(b|small|i)>##g; s#<br>#\n    #g; s#<li>#\n  - #g; s#<(p|ol|ul)>#\n#g; s#</[a-z]+>##g; s/&quot;/"/g; s/&\#39;/'"'"'/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g' | grep -v '^$'
}

# reply TICKET AGENT HTML: a technician replies on a ticket in HaloPSA.
reply() { jq -nc --argjson t "$1" --argjson a "$2" --arg n "$3" '{ticket_id:$t,as_agent:$a,outcome:"Private Note",note_html:$n}' | sim post actions >/dev/null; }

# phase NAME: a Ticket's phase.
phase() { kubectl -n $MSP_NS get ticket "$1" -o jsonpath='{.status.phase}'; }
in_phase() { [ "$(phase "$1")" = "$2" ]; }
