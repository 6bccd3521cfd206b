"""Runtimes that execute a compiled engine; nothing outside this folder imports one."""
