#!/bin/sh
# Second half of the build of the machine: unpack, install the Python packages, write initramfs and disk.
# Runs as root of a private mount namespace, so every mount made here ends with it.
# Arguments: build directory, directory of this script, size of the disk.
set -eu
work=$1 scripts=$2 size=$3
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
root=$work/root

mkdir "$root"
tar -x -f "$work/root.tar" -C "$root" "$([ "$(id -u)" = 0 ] && [ "$(awk '{print $3; exit}' /proc/self/uid_map)" -gt 1 ] \
    && echo --same-owner || echo --no-same-owner)"
install -D -m 644 "$scripts/agent.py" "$root/opt/rig/agent.py"
printf '127.0.0.1 localhost rig\n::1 localhost\n' >"$root/etc/hosts"
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/checkout" "$root/output" "$root/oci"

# The machine's own Python and pip choose the packages, so that they fit it, but run on the host's file system: whatever
# index, mirror, certificate or proxy the host's pip is configured for applies as it is.
library=$root/usr/lib/x86_64-linux-gnu
export SSL_CERT_FILE="${SSL_CERT_FILE:-$root/etc/ssl/certs/ca-certificates.crt}"
env PYTHONHOME="$root/usr" PYTHONPATH= PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "$library/ld-linux-x86-64.so.2" --library-path "$library:$root/lib/x86_64-linux-gnu" "$root/usr/bin/python3.11" \
    "$(ls "$root"/usr/share/python-wheels/pip-*.whl)/pip" \
    download --quiet --only-binary=:all: --dest "$root/wheels" --requirement "$work/requirements.txt"
mount --rbind /dev "$root/dev"
in_root() { env -i PATH="$PATH" LANG=C.UTF-8 chroot "$root" "$@"; }
in_root /usr/bin/python3 -m venv /opt/venv
in_root /opt/venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --no-deps \
    --find-links /wheels $(cd "$root" && ls wheels/*.whl)
rm -rf "$root/wheels"
umount --recursive --lazy "$root/dev"
: >"$root/etc/resolv.conf"

version=$(ls "$root/lib/modules")
in_root /sbin/depmod "$version"
cp "$root/boot/vmlinuz-$version" "$work/vmlinuz"

initramfs=$work/initramfs
mkdir -p "$initramfs/bin" "$initramfs/lib/modules/$version"
cp "$root/bin/busybox" "$initramfs/bin/busybox"
install -m 755 "$scripts/init.sh" "$initramfs/init"
for module in virtio_pci virtio_blk virtio_console ext4 crc32c_generic crc32c-intel 9pnet_virtio 9p kvm_amd tun \
    vhost_vsock fuse overlay; do
    in_root /sbin/modprobe --set-version "$version" --show-depends "$module" | while read -r word path _; do
        [ "$word" = insmod ] || continue
        mkdir -p "$initramfs${path%/*}"
        cp "$root$path" "$initramfs$path"
    done
done
cp "$root/lib/modules/$version/modules.builtin" "$root/lib/modules/$version/modules.order" "$initramfs/lib/modules/$version/"
mkdir "$root/run/initramfs"
mount --bind "$initramfs" "$root/run/initramfs"
in_root /sbin/depmod --basedir /run/initramfs "$version"
in_root /bin/sh -c 'cd /run/initramfs && find . | LC_ALL=C sort | busybox cpio -o -H newc' >"$work/initramfs.cpio"
umount "$root/run/initramfs"
rm -rf "$initramfs"

rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root/boot"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -m 0 -E lazy_itable_init=1 -d "$root" -F "$work/root.ext4" "$size"
