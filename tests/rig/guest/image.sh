# Last step of the image, run by mmdebstrap with the root file system as $1: the user and the workspace, then all that
# a sandbox does not need is taken out, because BoxLite unpacks every file of it, often on an emulated processor.
set -eu
cd "$1"

echo "agent:x:1000:" >>etc/group
echo "agent:!::" >>etc/gshadow
echo "agent:x:1000:1000:agent:/home/agent:/bin/bash" >>etc/passwd
echo "agent:!:20454:0:99999:7:::" >>etc/shadow
install -d -m 750 -o 1000 -g 1000 home/agent
install -d -m 755 -o 1000 -g 1000 workspace
chroot . dpkg-query --show --showformat '${Package} ${Version}\n' >image.packages

rm -rf var/lib/apt var/cache/apt var/cache/debconf var/cache/ldconfig var/log/* var/lib/dpkg/info var/lib/dpkg/*-old
rm -rf etc/*- etc/resolv.conf etc/cron.* etc/logrotate.d usr/share/debconf usr/share/bug usr/share/git-core/contrib
rm -rf usr/lib/udev usr/lib/systemd usr/share/zoneinfo/right usr/share/zoneinfo/posix usr/share/pixmaps
# Perl's library beyond perl-base, converters between character sets, documentation and installers of Python.
rm -rf usr/share/perl usr/share/perl5 usr/lib/x86_64-linux-gnu/perl usr/lib/x86_64-linux-gnu/libperl.so.*
rm -rf usr/lib/x86_64-linux-gnu/gconv usr/lib/python3.11/pydoc_data usr/lib/python3.11/lib2to3
for part in imap-send http-push http-fetch http-backend daemon shell sh-i18n--envsubst cvsserver svn; do
    rm -f "usr/lib/git-core/git-$part"
done
rm -f usr/bin/scalar usr/lib/git-core/scalar usr/bin/git-shell usr/bin/localedef
ln -sf ../../bin/git usr/lib/git-core/git
