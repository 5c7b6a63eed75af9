# Fuzz targets of the local engine's file readers.
if(TARGET ganglion_local_weights)
  ganglion_fuzz(safetensors SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_safetensors.cpp DEPS local_weights)
endif()
if(TARGET ganglion_local_tokenizer)
  ganglion_fuzz(tokenizer_json SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_tokenizer_json.cpp DEPS local_tokenizer)
endif()
