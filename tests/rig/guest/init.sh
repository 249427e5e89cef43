#!/bin/busybox sh
# First program of the emulated machine, in its initramfs: load what is needed, mount everything, hand over to agent.py.
# Neither udev nor systemd runs: each would cost seconds under emulation.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /new
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe -a virtio_pci virtio_blk virtio_console crc32c_intel crc32c_generic ext4 9pnet_virtio 9p

mount -t ext4 -o noatime /dev/vda /new || echo "rig: the disk cannot be mounted"
for tag in /sys/bus/virtio/drivers/9pnet_virtio/virtio*/mount_tag; do
    name=$(tr -d '\0' <"$tag")
    # The checkout does not change under a run, so the guest may cache it; what goes out must reach the host at once.
    case $name in
        output) options=rw,cache=none ;;
        *) options=ro,cache=loose ;;
    esac
    mkdir -p "/new/$name"
    mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$options" "$name" "/new/$name" \
        || echo "rig: the share $name cannot be mounted"
done

modprobe -a kvm_amd tun vhost_vsock fuse overlay
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
mount -t cgroup2 cgroup /new/sys/fs/cgroup
ln -s /proc/self/fd /new/dev/fd
ln -s fd/0 /new/dev/stdin
ln -s fd/1 /new/dev/stdout
ln -s fd/2 /new/dev/stderr
ip link set lo up
hostname rig
exec switch_root /new /usr/bin/python3 -IS /opt/rig/agent.py
