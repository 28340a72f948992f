#!/bin/sh
# What hello.jdl runs: says hello from wherever it landed, and shows what a job can know about itself.
echo "Hello, ${1:-you}! This is job ${JOBID:-?} on $(uname -n), in a work directory of its own."
echo "Its owner's limited proxy: ${X509_USER_PROXY:+yes}${X509_USER_PROXY:-no}" | sed 's/yes.*/yes/'
