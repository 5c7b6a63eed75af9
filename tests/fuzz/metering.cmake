ganglion_fuzz(ledger SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_ledger.cpp DEPS metering)
