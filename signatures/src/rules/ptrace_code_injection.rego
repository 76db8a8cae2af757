# TRC-103: a process writes into the memory of another one through ptrace.
package tracee.TRC_103

import data.tracee.helpers

__rego_metadoc__ := {
	"id": "TRC-103",
	"version": "1",
	"name": "Code was written into another process",
	"eventName": "ptrace_code_injection",
	"description": "A process wrote into the memory of another one with ptrace (PTRACE_POKETEXT or PTRACE_POKEDATA). Malware runs its code inside honest programs this way, to hide and to get at what they can reach. Debuggers do it too, when they set breakpoints.",
	"tags": ["linux", "container"],
	"properties": {
		"Severity": 3,
		"MITRE ATT&CK": "Defense Evasion: Process Injection: Ptrace System Calls",
		"external_id": "T1055.008",
		"Remedy": "Look at both processes: who started the one that writes, and what the other one can reach. If nobody is debugging it, stop both, and treat what the target had access to (keys, tokens, data) as stolen. For a debugger of yours, add its path to `allow` of this rule.",
	},
}

writes := {"PTRACE_POKETEXT", "PTRACE_POKEDATA"}

tracee_selected_events[selector] {
	selector := {"source": "tracee", "name": "ptrace"}
}

tracee_match = {"request": request, "target_pid": pid} {
	request := helpers.get_tracee_argument("request")
	writes[request]
	pid := helpers.get_tracee_argument("pid")
}
