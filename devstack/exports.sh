# Says what has changed in what pkg exports since the last tag, or at a tag since the one before it. It fails if a team's code would
# no longer compile: within one major version that must not happen. Usage: exports.sh APIDIFF
set -eu
apidiff=$1
if ! tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null); then
	echo 'exports: LEFT OUT, there is no tag to compare with'
	exit 0
fi
temp=$(mktemp -d)
trap 'git worktree remove --force "$temp/old" 2>/dev/null; rm -rf "$temp"' EXIT
git worktree add -q --detach "$temp/old" "$tag"
packages() { (cd "$1" && go list ./pkg/...) | sort; }
packages "$temp/old" >"$temp/before"
packages . >"$temp/after"
broken=0
for package in $(comm -23 "$temp/before" "$temp/after"); do
	echo "$package: gone since $tag"
	broken=1
done
for package in $(comm -13 "$temp/before" "$temp/after"); do
	echo "$package: new since $tag"
done
for package in $(comm -12 "$temp/before" "$temp/after"); do
	(cd "$temp/old" && "$apidiff" -w "$temp/export" "$package")
	"$apidiff" "$temp/export" "$package" >"$temp/changes"
	[ ! -s "$temp/changes" ] || { echo "$package, since $tag:"; cat "$temp/changes"; }
	[ -z "$("$apidiff" -incompatible "$temp/export" "$package")" ] || broken=1
done
if [ $broken = 1 ]; then
	echo "exports: a team's code may no longer compile: that needs a new major version" >&2
	exit 1
fi
echo "exports: compatible with $tag"
