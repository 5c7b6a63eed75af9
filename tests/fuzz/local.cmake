# The local engine's readers of files and of what requests and models write; and the ledger's recovery beside them.
if(TARGET ganglion_backends_local)
  foreach(codec json_schema tool_calls safetensors tokenizer_json ledger)
    ganglion_fuzz(${codec} SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_${codec}.cpp SOURCES ${CMAKE_CURRENT_LIST_DIR}/local_property.cpp
      DEPS backends_local local_weights local_tokenizer metering)
  endforeach()
endif()
