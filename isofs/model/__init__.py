"""The model: frozen values and the pure rules of Protocols 2 and 3. Nothing here touches a file."""
