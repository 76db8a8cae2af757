# What every signature may import as data.tracee.helpers: reading arguments, and what flags and bytes mean.
package tracee.helpers

# The value of the argument called `wanted`; undefined when the event has none.
get_tracee_argument(wanted) = found {
	argument := input.args[_]
	argument.name == wanted
	found := argument.value
}

# Flags of open(2), spelled out, that allow writing.
is_file_write(flags) {
	contains(lower(flags), "o_wronly")
}

is_file_write(flags) {
	contains(lower(flags), "o_rdwr")
}

# Flags of open(2), spelled out, that allow reading.
is_file_read(flags) {
	contains(lower(flags), "o_rdonly")
}

is_file_read(flags) {
	contains(lower(flags), "o_rdwr")
}

# Bytes in base64 that begin like an ELF file: 0x7f, then the letters.
is_elf_file(bytes) {
	lower(substring(base64.decode(bytes), 1, 3)) == "elf"
}
