#!/bin/sh
# In the place of an archiver, for checks that link nothing: makes the archive, empty. GNU's calls
# have it as their second argument, Microsoft's as -out:FILE.
for argument in "$@"; do
    case $argument in
    -out:* | /out:* | -OUT:* | /OUT:*) : >"${argument#?????}" && exit ;;
    esac
done
: >"${2:?the archive}"
