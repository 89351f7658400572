# Sourced by the scripts that take an interpreter from Debian.

# Prints the URL of the Debian archive that this machine installs from; fails if apt knows none.
debian_archive() {
    local url
    url=$( (. /etc/os-release && apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Origin: Debian" "Codename: $VERSION_CODENAME") |
        head -1)
    if [ -z "$url" ]; then
        echo "apt knows no Debian archive on this machine: run apt-get update, if it is one of Debian's" >&2
        return 1
    fi
    echo "$url"
}
