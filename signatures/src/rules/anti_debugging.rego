# TRC-102: a process asks to be traced by its parent, which keeps every other tracer away from it.
package tracee.TRC_102

import data.tracee.helpers

__rego_metadoc__ := {
	"id": "TRC-102",
	"version": "1",
	"name": "A process keeps debuggers away from itself",
	"eventName": "anti_debugging",
	"description": "A process called ptrace(PTRACE_TRACEME). A process can have one tracer only, so malware does this to find out whether it is being debugged, or to forbid it. Debuggers and strace do it too, in the program that they start.",
	"tags": ["linux", "container"],
	"properties": {
		"Severity": 1,
		"MITRE ATT&CK": "Defense Evasion: Debugger Evasion",
		"external_id": "T1622",
		"Remedy": "See whether the parent of this process is a debugger that somebody started. If not, look at the program: what hides from debuggers is worth an analysis. Where debugging is daily work, add an exception for the debugger as parent.",
	},
}

tracee_selected_events[selector] {
	selector := {"source": "tracee", "name": "ptrace"}
}

tracee_match = {"request": request} {
	request := helpers.get_tracee_argument("request")
	request == "PTRACE_TRACEME"
}
