# Sourced by kernel/build and scripts/build-erofs-utils: packages of another Debian suite, without a
# change to the system's own apt configuration. The mirror and its signing key are the system's own.

# The folder where what takes long to make is kept.
hull_cache=${HULL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hull}

fail() {
  echo "$0: $*" >&2
  exit 1
}

# Runs "$@" again after a pause when it fails: mirrors have bad moments.
retry() {
  for pause in 2 5 0; do
    "$@" && return 0
    [ $pause = 0 ] || sleep $pause
  done
  return 1
}

# Prints the system's own entry for Debian's main archive, as deb822, with types $1 and suite $2.
debian_source() {
  apt-get indextargets --format '$(SOURCESENTRY)|$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)' \
    'Created-By: Packages' |
    awk -F'|' '$2 == "Debian" && $3 == "Debian" && $4 == "main" && $5 !~ /-/ { print $1 "|" $6; exit }' |
    {
      IFS='|' read -r entry uri || fail "apt knows no Debian archive; run: apt-get update"
      file=${entry%:*}
      case $file in
      *.sources)
        signed_by=$(awk -v want="${entry##*:}" '
          BEGIN { RS = ""; FS = "\n" }
          /(^|\n)Types:/ && ++seen == want {
            for (i = 1; i <= NF; i++) {
              if ($i ~ /^[^ #]/) inside = ($i ~ /^[Ss]igned-[Bb]y:/)
              if (inside) print $i
            }
          }' "$file")
        ;;
      *)
        signed_by=$(sed -n 's/^deb .*signed-by=\([^] ]*\).*/Signed-By: \1/p' "$file" | head -n 1)
        ;;
      esac
      printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\n' "$1" "$uri" "$2"
      [ -z "$signed_by" ] || printf '%s\n' "$signed_by"
    }
}

# apt_private SUITE TYPES: makes (or refreshes, when older than a day) a private apt directory for a
# suite. Afterwards `private_apt PROGRAM …` runs apt-get or apt-cache with it.
apt_private() {
  private_dir=$hull_cache/apt/$1-$2
  mkdir -p "$private_dir/lists/partial" "$private_dir/cache/archives/partial" "$private_dir/parts"
  debian_source "$2" "$1" >"$private_dir/new.sources"
  [ -s "$private_dir/new.sources" ] || fail "no Debian archive in the system's apt sources"
  if ! cmp -s "$private_dir/new.sources" "$private_dir/parts/hull.sources" ||
    [ -z "$(find "$private_dir/updated" -mtime -1 2>/dev/null)" ]; then
    mv "$private_dir/new.sources" "$private_dir/parts/hull.sources"
    retry private_apt apt-get -qq update >&2 || return 1
    touch "$private_dir/updated"
  fi
}

private_apt() {
  program=$1
  shift
  "$program" -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$private_dir/parts" \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o "Dir::State::lists=$private_dir/lists" -o "Dir::Cache=$private_dir/cache" \
    -o APT::Sandbox::User= -o APT::Update::Post-Invoke-Success= -o Acquire::Languages=none "$@"
}

# The version `$1 $2…` (apt-cache, perhaps private) would install of the last argument; "" for none.
candidate() {
  "$@" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true
}
