# hotset::hotset is the shared library, hotset::static the static one. This file is the same on
# every platform: the version is that of hotset.h, and the library is looked up below the prefix.
# Paths are relative to this file, so that the installed tree may be moved; to its real path, since
# a directory above it may be a link.
get_filename_component(_hotset_prefix "${CMAKE_CURRENT_LIST_DIR}" REALPATH)
get_filename_component(_hotset_prefix "${_hotset_prefix}/../../.." ABSOLUTE)

# Sets a variable to the path of a file of the library. `hotset_LIBDIR` names a directory other than
# the standard ones, absolute or relative to the prefix.
function(_hotset_find variable name)
  set(dirs lib lib64)
  if(CMAKE_LIBRARY_ARCHITECTURE)
    set(dirs "lib/${CMAKE_LIBRARY_ARCHITECTURE}" ${dirs})
  endif()
  if(hotset_LIBDIR)
    set(dirs "${hotset_LIBDIR}")
  endif()
  set(${variable} "" PARENT_SCOPE)
  foreach(dir IN LISTS dirs)
    get_filename_component(path "${dir}/${name}" ABSOLUTE BASE_DIR "${_hotset_prefix}")
    if(EXISTS "${path}")
      set(${variable} "${path}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

if(NOT TARGET hotset::hotset)
  file(STRINGS "${_hotset_prefix}/include/hotset.h" _hotset_version REGEX "^#define HOTSET_VERSION_STRING ")
  string(REGEX MATCH "[0-9]+\\.[0-9]+" _hotset_abi "${_hotset_version}")
  if(NOT _hotset_abi MATCHES "^0\\.")
    string(REGEX MATCH "^[0-9]+" _hotset_abi "${_hotset_abi}")
  endif()
  _hotset_find(_hotset_shared "${CMAKE_SHARED_LIBRARY_PREFIX}hotset${CMAKE_SHARED_LIBRARY_SUFFIX}")
  _hotset_find(_hotset_static "${CMAKE_STATIC_LIBRARY_PREFIX}hotset${CMAKE_STATIC_LIBRARY_SUFFIX}")
  if(NOT _hotset_shared AND NOT _hotset_static)
    set(hotset_FOUND FALSE)
    set(hotset_NOT_FOUND_MESSAGE "no library hotset in lib of ${_hotset_prefix}: set hotset_LIBDIR to its directory")
  endif()
  if(_hotset_shared)
    add_library(hotset::hotset SHARED IMPORTED)
    set_target_properties(hotset::hotset PROPERTIES
      IMPORTED_LOCATION "${_hotset_shared}"
      INTERFACE_INCLUDE_DIRECTORIES "${_hotset_prefix}/include")
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
      set_target_properties(hotset::hotset PROPERTIES IMPORTED_SONAME "libhotset.so.${_hotset_abi}")
    endif()
  endif()
  if(_hotset_static)
    add_library(hotset::static STATIC IMPORTED)
    set_target_properties(hotset::static PROPERTIES
      IMPORTED_LOCATION "${_hotset_static}"
      INTERFACE_INCLUDE_DIRECTORIES "${_hotset_prefix}/include")
    # What Rust's standard library needs. The unwinder of libgcc_eh serves static programs, too.
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
      set_target_properties(hotset::static PROPERTIES INTERFACE_LINK_LIBRARIES
        "-Wl,--exclude-libs,libhotset.a;-lgcc_eh;-lutil;-lrt;-lpthread;-lm;-ldl;-lc")
    endif()
  endif()
  unset(_hotset_version)
  unset(_hotset_abi)
  unset(_hotset_shared)
  unset(_hotset_static)
endif()
unset(_hotset_prefix)
