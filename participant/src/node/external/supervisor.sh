# Runs a trainer as the leader of a process group of its own, and ends the group when the node says so or is gone.
# Arguments: address space in KiB, file size in blocks of 512 bytes, niceness, program, its arguments.
# Standard input is a pipe from the node: the first line means "begin", every other "end soon", its end means "end now". The
# system closes the pipe when the node dies, however it dies.
read -r line || exit 125
ulimit -c 0 && ulimit -f "$2" && ulimit -v "$1" || {
  echo "the limits of this trainer cannot be set" >&2
  exit 126
}
niceness=$3
shift 3
exec 3<&0 </dev/null
(
  trap '' TERM
  while read -r line <&3; do kill -s TERM 0; done
  kill -s KILL 0
) >/dev/null 2>&1 &
exec 3<&-
exec nice -n "$niceness" "$@"
