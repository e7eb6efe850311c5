"""Scenes as agencies ship them: folders, archives and STAC items, each read as one raster."""
