# What U-Boot does at each start: read which slot to start, take one try off it, start it.  Numbers are hexadecimal.
# The rules are those of device/update/boot_state.py; the sentences stand in docs/boot.md.
# Nothing here waits for a person: whatever fails, the other slot is tried, and then everything anew.

test -n "${devtype}" || setenv devtype mmc
test -n "${devnum}" || setenv devnum 0
${devtype} dev ${devnum}
setexpr till_at ${scriptaddr} + 80000
setexpr till_sum ${scriptaddr} + 81000
setexpr till_env ${scriptaddr} + 82000

# A copy counts when its checksum holds and its words are the three of a boot state.
setenv till_sane 'setenv till_n 0
if test "${BOOT_ORDER}" = "a b" -o "${BOOT_ORDER}" = "b a" -o "${BOOT_ORDER}" = a -o "${BOOT_ORDER}" = b; then
  for n in 0 1 2 3 4 5 6 7 8 9; do
    if test "${BOOT_a_LEFT}" = ${n}; then setexpr till_n ${till_n} + 1; fi
    if test "${BOOT_b_LEFT}" = ${n}; then setexpr till_n ${till_n} + 1; fi
  done
fi
test ${till_n} = 2'

setenv till_from ""
for sector in 40 48; do
  if test -z "${till_from}"; then
    setenv BOOT_ORDER; setenv BOOT_a_LEFT; setenv BOOT_b_LEFT
    if ${devtype} read ${till_at} ${sector} 1 && env import -c ${till_at} 200 BOOT_ORDER BOOT_a_LEFT BOOT_b_LEFT; then
      if run till_sane; then setenv till_from ${sector}; fi
    fi
  fi
done
if test -z "${till_from}"; then
  echo "till: no boot state is whole: both slots have all their tries"
  setenv BOOT_ORDER "a b"; setenv BOOT_a_LEFT 3; setenv BOOT_b_LEFT 3
fi

setenv till_any 0
for slot in ${BOOT_ORDER}; do
  if test ${slot} = a; then setenv till_left ${BOOT_a_LEFT}; else setenv till_left ${BOOT_b_LEFT}; fi
  if test ${till_left} -gt 0; then setenv till_any 1; fi
done
if test ${till_any} = 0; then
  echo "till: no slot has a try left: each gets one more"
  setenv BOOT_a_LEFT 1; setenv BOOT_b_LEFT 1
  if test "${BOOT_ORDER}" = a; then setenv BOOT_ORDER "a b"; fi
  if test "${BOOT_ORDER}" = b; then setenv BOOT_ORDER "b a"; fi
fi

# Both copies, one after the other: a cut between them leaves the older one whole.
setenv till_write 'env export -c -s 200 ${till_at} BOOT_ORDER BOOT_a_LEFT BOOT_b_LEFT
if ${devtype} write ${till_at} 40 1 && ${devtype} write ${till_at} 48 1; then true; else echo "till: the boot state cannot be written"; fi'

# A file that does not match its sum is not started.  No sum: not checked.  Two spellings: one U-Boot leaves the sum's bytes in
# memory the other way round than another.
setenv till_check 'setenv till_good 1
if test -n "${till_want}"; then
  setenv till_good 0
  crc32 ${till_addr} ${filesize} ${till_sum}
  for sum in ${till_want}; do
    mw.l ${till_at} 0x${sum}
    if cmp.l ${till_at} ${till_sum} 1; then setenv till_good 1; fi
  done
fi
test ${till_good} = 1'

setenv till_start 'if load ${devtype} ${devnum}:${till_part} ${till_env} slot.env && env import -t ${till_env} ${filesize} version cmdline image_crc initrd_crc; then
  setenv till_addr ${kernel_addr_r}; setenv till_want ${image_crc}
  if load ${devtype} ${devnum}:${till_part} ${till_addr} Image && run till_check; then
    setenv till_addr ${ramdisk_addr_r}; setenv till_want ${initrd_crc}
    if load ${devtype} ${devnum}:${till_part} ${till_addr} initrd && run till_check; then
      setenv bootargs "${cmdline} till.slot=${till_slot} till.disk=${devtype}"
      echo "till: slot ${till_slot}, version ${version}, tries left ${till_left}"
      booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdt_addr}
    fi
  fi
fi
echo "till: slot ${till_slot} does not start: its files are missing or damaged"'

for slot in ${BOOT_ORDER}; do
  setenv till_slot ${slot}
  if test ${slot} = a; then setenv till_left ${BOOT_a_LEFT}; setenv till_part 2; else setenv till_left ${BOOT_b_LEFT}; setenv till_part 3; fi
  if test ${till_left} -gt 0; then
    setexpr till_left ${till_left} - 1
    if test ${slot} = a; then setenv BOOT_a_LEFT ${till_left}; else setenv BOOT_b_LEFT ${till_left}; fi
    run till_write
    run till_start
  fi
done
echo "till: no slot started. Starting again in 5 seconds."
sleep 5
reset
